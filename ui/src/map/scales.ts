// How numbers become looks. Pure.

/** Line widths in CSS pixels, from the least traffic to the most. */
export const WIDTHS = [1, 1.75, 2.75, 4, 5.5, 7.5] as const;
/** The bytes from which each width after the first is drawn: a decade and a half apart, from 10 kB on. */
export const WIDTH_STEPS = [10_000, 300_000, 10_000_000, 300_000_000, 10_000_000_000] as const;

/** Which of {@link WIDTHS} so many bytes in a span get. */
export function widthStep(bytes: number): number {
  let step = 0;
  while (step < WIDTH_STEPS.length && bytes >= (WIDTH_STEPS[step] ?? Number.POSITIVE_INFINITY)) step += 1;
  return step;
}

/** A picture's extent. */
export interface Extent {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** How a picture is looked at: `screen = (world - origin) * scale`. */
export interface Camera {
  x: number;
  y: number;
  scale: number;
}

export const SCALE_MAX = 2.5;
export const SCALE_MIN = 0.04;

/** The camera that shows all of a picture in a window, not larger than life. */
export function fit(extent: Extent, width: number, height: number, margin = 28): Camera {
  if (extent.width <= 0 || extent.height <= 0 || width <= 0 || height <= 0) return { x: 0, y: 0, scale: 1 };
  const scale = Math.max(
    SCALE_MIN,
    Math.min(1.15, Math.max(1, width - 2 * margin) / extent.width, Math.max(1, height - 2 * margin) / extent.height),
  );
  return {
    scale,
    x: extent.x + extent.width / 2 - width / 2 / scale,
    y: extent.y + extent.height / 2 - height / 2 / scale,
  };
}

/** The camera after a zoom about a point of the window. */
export function zoomed(camera: Camera, by: number, x: number, y: number): Camera {
  const scale = Math.min(SCALE_MAX, Math.max(SCALE_MIN, camera.scale * by));
  return { scale, x: camera.x + x / camera.scale - x / scale, y: camera.y + y / camera.scale - y / scale };
}

/** The camera that has a point of the world in the window, moved no more than it must. */
export function within(camera: Camera, point: { x: number; y: number }, width: number, height: number, margin = 70): Camera {
  const [left, top] = [(point.x - camera.x) * camera.scale, (point.y - camera.y) * camera.scale];
  const shift = (at: number, size: number) => {
    const edge = Math.min(margin, size / 3);
    return at < edge ? at - edge : at > size - edge ? at - (size - edge) : 0;
  };
  return { ...camera, x: camera.x + shift(left, width) / camera.scale, y: camera.y + shift(top, height) / camera.scale };
}
