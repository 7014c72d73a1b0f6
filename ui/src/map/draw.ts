// Draws a scene on a canvas. Lines of one look and width are one path, names are left out where they could not be read, and
// arrows where they would be dust: a thousand nodes with three thousand links are drawn within a frame.
import { printable } from '../text.ts';
import { LOOKS } from './looks.ts';
import type { MapEnd, Mark } from './graph.ts';
import type { Camera } from './scales.ts';
import { CLOSE_SIGN, OPEN_SIGN, type Route, type Scene, type Spot } from './scene.ts';

/** From these scales on, things are drawn that are too small below. */
const NAMES_FROM = 0.55;
const ARROWS_FROM = 0.3;
const SIGNS_FROM = 0.16;
const NAME_WIDTH = 118;
const LINES_A_PATH = 4;
/** More names than this have no rim: it costs as much as they do. */
const RIMS_MAX = 250;

export interface Theme {
  of: (variable: string) => string;
  font: string;
}

/** What is put before the rest. */
export interface Emphasis {
  nodes: ReadonlySet<string>;
  links: ReadonlySet<string>;
}

/** How and from where a canvas is drawn. */
export interface Frame {
  width: number;
  height: number;
  /** Device pixels for a CSS pixel. */
  ratio: number;
  camera: Camera;
  theme: Theme;
}

/** What lies over the picture. */
export interface Overlay {
  /** `null`: all alike. */
  emphasis: Emphasis | null;
  /** The node that the keyboard is at. */
  current: string | null;
  hovered: string | null;
  selectedLink: string | null;
}

/** The theme of the page as it is now. */
export function themeOf(element: Element): Theme {
  const style = getComputedStyle(element);
  const known = new Map<string, string>();
  return {
    font: style.fontFamily,
    of: (variable) => {
      const value = known.get(variable) ?? style.getPropertyValue(variable).trim();
      known.set(variable, value);
      return value;
    },
  };
}

/** Draws all of it. */
export function draw(ctx: CanvasRenderingContext2D, scene: Scene, frame: Frame): void {
  const seen = begin(ctx, frame);
  drawBoxes(ctx, scene, frame);
  drawRoutes(ctx, scene.routes.filter((route) => touches(route, seen)), frame, faintness(scene.routes.length));
  drawTitles(ctx, scene, frame);
  drawSpots(ctx, [...scene.spots.values()].filter((spot) => isSeen(spot, seen)), frame);
}

/** Draws what is put before the rest: over the picture, which is then faint, on a canvas of its own. */
export function drawOverlay(ctx: CanvasRenderingContext2D, scene: Scene, frame: Frame, over: Overlay): void {
  const seen = begin(ctx, frame);
  const { emphasis } = over;
  if (emphasis !== null) {
    drawRoutes(ctx, scene.routes.filter((route) => emphasis.links.has(route.link.key) && touches(route, seen)), frame);
    drawSpots(ctx, [...emphasis.nodes].flatMap((key) => scene.spots.get(key) ?? []).filter((spot) => isSeen(spot, seen)), frame);
  }
  drawCurrent(ctx, scene, frame, over);
}

/** Clears the canvas and says what of the world it shows. */
function begin(ctx: CanvasRenderingContext2D, { width, height, ratio, camera }: Frame): Seen {
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.clearRect(0, 0, width * ratio, height * ratio);
  ctx.setTransform(ratio * camera.scale, 0, 0, ratio * camera.scale, -camera.x * camera.scale * ratio, -camera.y * camera.scale * ratio);
  return { left: camera.x, top: camera.y, right: camera.x + width / camera.scale, bottom: camera.y + height / camera.scale };
}

function isSeen({ x, y }: Spot, seen: Seen): boolean {
  return x > seen.left - 80 && x < seen.right + 80 && y > seen.top - 60 && y < seen.bottom + 60;
}

/** How opaque links that say nothing are: many would hide what is under them. */
function faintness(links: number): number {
  return links <= 60 ? 1 : Math.max(0.22, Math.sqrt(60 / links));
}

interface Seen {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

function touches({ from, bend, to }: Route, seen: Seen): boolean {
  return (
    Math.max(from.x, bend.x, to.x) >= seen.left &&
    Math.min(from.x, bend.x, to.x) <= seen.right &&
    Math.max(from.y, bend.y, to.y) >= seen.top &&
    Math.min(from.y, bend.y, to.y) <= seen.bottom
  );
}

/** A length that is the same on the screen at every scale below 1, within reason. */
function steady(length: number, scale: number): number {
  return scale >= 1 ? length : length / Math.max(scale, 0.2) ** 0.75;
}

function drawBoxes(ctx: CanvasRenderingContext2D, scene: Scene, { camera, theme }: Frame): void {
  for (const box of scene.boxes) {
    const isWorkload = box.kind === 'workload';
    ctx.beginPath();
    ctx.roundRect(box.x, box.y, box.width, box.height, isWorkload ? 9 : 14);
    ctx.fillStyle = theme.of(isWorkload ? '--map-inner' : '--map-box');
    ctx.fill();
    ctx.setLineDash(box.kind === 'outside' || box.kind === 'unknown' ? [6, 5] : []);
    ctx.strokeStyle = theme.of('--map-edge');
    ctx.lineWidth = steady(1, camera.scale);
    ctx.stroke();
    ctx.setLineDash([]);
  }
}

/** Boxes' names and the signs that close them: over the links, which run through boxes. */
function drawTitles(ctx: CanvasRenderingContext2D, scene: Scene, { camera, theme }: Frame): void {
  for (const box of scene.boxes) {
    const isWorkload = box.kind === 'workload';
    const isNear = camera.scale >= NAMES_FROM;
    if (isWorkload && !isNear) continue;
    // From afar the name stands above its box, in the gap between boxes.
    const size = isWorkload ? 12 : Math.min(steady(13, camera.scale), 38);
    ctx.font = `600 ${size}px ${theme.font}`;
    ctx.textBaseline = isNear ? 'middle' : 'alphabetic';
    ctx.textAlign = 'left';
    const text = fitted(ctx, printable(box.label), box.width - 24 - (box.opens === null ? 0 : 18));
    rimmed(ctx, text, box.x + 12, isNear ? box.y + 16 : box.y - size * 0.35, theme, isWorkload ? '--map-inner' : '--map-box', '--soft');
    if (box.opens !== null && camera.scale >= ARROWS_FROM) {
      sign(ctx, box.x + box.width + CLOSE_SIGN.dx, box.y + CLOSE_SIGN.dy, CLOSE_SIGN.radius, '−', theme);
    }
  }
}

/** Text with a rim in the ground's colour, which keeps it legible on lines. */
function rimmed(ctx: CanvasRenderingContext2D, text: string, x: number, y: number, theme: Theme, ground: string, ink: string): void {
  ctx.lineJoin = 'round';
  ctx.lineWidth = 4;
  ctx.strokeStyle = theme.of(ground);
  ctx.strokeText(text, x, y);
  ctx.fillStyle = theme.of(ink);
  ctx.fillText(text, x, y);
}

/** A round button with a sign. */
function sign(ctx: CanvasRenderingContext2D, x: number, y: number, radius: number, what: '+' | '−', theme: Theme): void {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = theme.of('--sheet');
  ctx.fill();
  ctx.lineWidth = 1.2;
  ctx.strokeStyle = theme.of('--accent');
  ctx.stroke();
  ctx.beginPath();
  ctx.moveTo(x - 3.6, y);
  ctx.lineTo(x + 3.6, y);
  if (what === '+') {
    ctx.moveTo(x, y - 3.6);
    ctx.lineTo(x, y + 3.6);
  }
  ctx.lineWidth = 1.6;
  ctx.stroke();
}

function drawRoutes(ctx: CanvasRenderingContext2D, routes: readonly Route[], { camera, theme }: Frame, opacity = 1): void {
  const alpha = ctx.globalAlpha;
  const alike = new Map<string, Route[]>();
  for (const route of routes) {
    const key = `${route.link.mark} ${route.width}`;
    const list = alike.get(key);
    if (list === undefined) alike.set(key, [route]);
    else list.push(route);
  }
  const isFar = camera.scale < ARROWS_FROM;
  for (const list of alike.values()) {
    const [first] = list;
    if (first === undefined) continue;
    const look = LOOKS[first.link.mark];
    ctx.globalAlpha = alpha * (look.sign === '' ? opacity : 1);
    ctx.strokeStyle = theme.of(look.colour);
    ctx.lineWidth = Math.max(first.width, 0.7 / camera.scale);
    ctx.setLineDash(isFar && look.sign === '' ? [] : look.dash.map((part) => steady(part, camera.scale)));
    // Many short paths: a rasteriser without a graphics card is slowest with one path that has thousands of lines.
    for (let at = 0; at < list.length; at += LINES_A_PATH) {
      ctx.beginPath();
      for (const { from, bend, to } of list.slice(at, at + LINES_A_PATH)) {
        ctx.moveTo(from.x, from.y);
        if (isFar) ctx.lineTo(to.x, to.y);
        else ctx.quadraticCurveTo(bend.x, bend.y, to.x, to.y);
      }
      ctx.stroke();
    }
    ctx.setLineDash([]);
    if (!isFar) drawArrows(ctx, list, look.colour, theme);
  }
  ctx.globalAlpha = alpha;
  if (camera.scale < SIGNS_FROM) return;
  for (const route of routes) {
    const look = LOOKS[route.link.mark];
    if (look.sign !== '') drawMark(ctx, route, look.colour, look.sign, camera.scale, theme);
  }
}

function drawArrows(ctx: CanvasRenderingContext2D, routes: readonly Route[], colour: string, theme: Theme): void {
  ctx.fillStyle = theme.of(colour);
  ctx.beginPath();
  for (const { bend, to, width } of routes) {
    const length = 6 + width * 1.6;
    const [dx, dy] = [to.x - bend.x, to.y - bend.y];
    const norm = Math.hypot(dx, dy) || 1;
    const [ux, uy] = [dx / norm, dy / norm];
    const half = 2.6 + width * 0.85;
    ctx.moveTo(to.x + ux * 1.5, to.y + uy * 1.5);
    ctx.lineTo(to.x - ux * length - uy * half, to.y - uy * length + ux * half);
    ctx.lineTo(to.x - ux * length + uy * half, to.y - uy * length - ux * half);
    ctx.closePath();
  }
  ctx.fill();
}

function drawMark(ctx: CanvasRenderingContext2D, { middle }: Route, colour: string, text: string, scale: number, theme: Theme): void {
  const radius = steady(9, scale);
  ctx.beginPath();
  ctx.arc(middle.x, middle.y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = theme.of('--sheet');
  ctx.fill();
  ctx.lineWidth = steady(1.6, scale);
  ctx.strokeStyle = theme.of(colour);
  ctx.stroke();
  ctx.fillStyle = theme.of(colour);
  ctx.font = `700 ${steady(13, scale)}px ${theme.font}`;
  ctx.textAlign = 'center';
  ctx.textBaseline = 'middle';
  ctx.fillText(text, middle.x, middle.y + radius * 0.06);
}

const FILLS: Partial<Record<MapEnd['end']['kind'], string>> = { external: '--map-outside', unknown: '--map-outside', address: '--map-outside', node: '--map-host', process: '--map-host' };

function drawSpots(ctx: CanvasRenderingContext2D, spots: readonly Spot[], frame: Frame): void {
  const { camera, theme } = frame;
  const withNames = camera.scale >= NAMES_FROM;
  for (const spot of spots) {
    outline(ctx, spot);
    ctx.fillStyle = theme.of(FILLS[spot.node.end.kind] ?? '--map-node');
    ctx.fill();
    ctx.lineWidth = ringWidth(spot.node.mark, camera.scale);
    ctx.strokeStyle = theme.of(ringColour(spot.node.mark));
    ctx.setLineDash(spot.node.end.kind === 'unknown' ? [3, 3] : []);
    ctx.stroke();
    ctx.setLineDash([]);
    if (camera.scale >= ARROWS_FROM) glyph(ctx, spot, theme);
    if (spot.node.opens !== null && withNames) {
      sign(ctx, spot.x + OPEN_SIGN.dx * spot.radius, spot.y + OPEN_SIGN.dy * spot.radius, OPEN_SIGN.radius - 1, '+', theme);
    }
  }
  const isTile = (spot: Spot) => spot.node.end.kind === 'namespace' || spot.node.end.kind === 'node';
  const withRims = spots.length <= RIMS_MAX;
  for (const spot of spots) if (withNames || (isTile(spot) && camera.scale >= SIGNS_FROM * 1.6)) name(ctx, spot, frame, withRims);
}

function ringColour(mark: Mark): string {
  return ['plain', 'healthy', 'unknown', 'gone'].includes(mark) ? '--map-ring' : LOOKS[mark].colour;
}

function ringWidth(mark: Mark, scale: number): number {
  return steady(mark === 'sick' ? 3 : ['plain', 'healthy', 'unknown', 'gone'].includes(mark) ? 1.4 : 2.4, scale);
}

/** Namespaces and nodes are square, who is outside is a diamond, the rest is round. */
function outline(ctx: CanvasRenderingContext2D, { node, x, y, radius }: Spot): void {
  ctx.beginPath();
  if (node.end.kind === 'namespace' || node.end.kind === 'node') ctx.roundRect(x - radius, y - radius, 2 * radius, 2 * radius, 8);
  else if (['external', 'address', 'unknown'].includes(node.end.kind)) {
    const r = radius * 1.16;
    ctx.moveTo(x, y - r);
    ctx.lineTo(x + r, y);
    ctx.lineTo(x, y + r);
    ctx.lineTo(x - r, y);
    ctx.closePath();
  } else ctx.arc(x, y, radius, 0, 2 * Math.PI);
}

/** What kind of thing it is, in one or two letters. */
const GLYPHS: Record<string, string> = {
  deployment: 'D',
  stateful_set: 'SS',
  daemon_set: 'DS',
  replica_set: 'RS',
  job: 'J',
  cron_job: 'CJ',
  namespace: 'ns',
  node: 'node',
  process: 'p',
  container: 'c',
  service: 'S',
  external: '↗',
  address: '↗',
  unknown: '?',
  zone: 'z',
  attribute: 'a',
};

function glyph(ctx: CanvasRenderingContext2D, { node, x, y, radius }: Spot, theme: Theme): void {
  const text = GLYPHS[node.end.kind] ?? '';
  if (text === '') return;
  ctx.font = `600 ${radius > 18 ? 12 : 10.5}px ${theme.font}`;
  ctx.textAlign = 'center';
  ctx.textBaseline = 'middle';
  ctx.fillStyle = theme.of('--map-glyph');
  ctx.fillText(text, x, y + 0.5);
}

function name(ctx: CanvasRenderingContext2D, { node, x, y, radius }: Spot, { theme, camera }: Frame, withRim: boolean): void {
  const isTile = node.end.kind === 'namespace' || node.end.kind === 'node';
  ctx.font = `${isTile ? 600 : 500} ${isTile ? steady(13, camera.scale) : 12}px ${theme.font}`;
  ctx.textAlign = 'center';
  ctx.textBaseline = 'alphabetic';
  const text = fitted(ctx, printable(node.label), NAME_WIDTH);
  const sure = node.end.certainty === 'inferred' ? `${text} ?` : text;
  const under = y + radius + 15;
  if (withRim) rimmed(ctx, sure, x, under, theme, '--map-box', '--ink');
  else {
    ctx.fillStyle = theme.of('--ink');
    ctx.fillText(sure, x, under);
  }
}

const widths = new Map<string, string>();

/** The text, with its middle left out where it is too long: names differ at their ends. */
function fitted(ctx: CanvasRenderingContext2D, text: string, width: number): string {
  const key = `${ctx.font}|${Math.round(width)}|${text}`;
  const known = widths.get(key);
  if (known !== undefined) return known;
  let short = text;
  for (let keep = text.length - 1; keep > 4 && ctx.measureText(short).width > width; keep -= 1) {
    const head = Math.ceil(keep * 0.6);
    short = `${text.slice(0, head)}…${text.slice(text.length - (keep - head))}`;
  }
  if (widths.size > 20_000) widths.clear();
  widths.set(key, short);
  return short;
}

/** What is pointed at, chosen, or where the keyboard is, over all else. */
function drawCurrent(ctx: CanvasRenderingContext2D, scene: Scene, frame: Frame, over: Overlay): void {
  const { theme, camera } = frame;
  const chosen = scene.routes.find(({ link }) => link.key === over.selectedLink);
  if (chosen !== undefined) {
    ctx.globalAlpha = 0.28;
    ctx.strokeStyle = theme.of('--accent');
    ctx.lineWidth = chosen.width + steady(9, camera.scale);
    ctx.lineCap = 'round';
    ctx.beginPath();
    ctx.moveTo(chosen.from.x, chosen.from.y);
    ctx.quadraticCurveTo(chosen.bend.x, chosen.bend.y, chosen.to.x, chosen.to.y);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.lineCap = 'butt';
    drawRoutes(ctx, [chosen], frame);
  }
  for (const [key, colour] of [[over.hovered, '--soft'], [over.current, '--accent']] as const) {
    const spot = key === null ? undefined : scene.spots.get(key);
    if (spot === undefined) continue;
    outline(ctx, { ...spot, radius: spot.radius + steady(5, camera.scale) });
    ctx.lineWidth = steady(2.2, camera.scale);
    ctx.strokeStyle = theme.of(colour);
    ctx.stroke();
    if (camera.scale < NAMES_FROM) tag(ctx, spot, frame);
  }
}

/** The name of a node that is too small to have one, at a size that can be read. */
function tag(ctx: CanvasRenderingContext2D, { node, x, y, radius }: Spot, { theme, camera }: Frame): void {
  const size = 12.5 / camera.scale;
  ctx.font = `600 ${size}px ${theme.font}`;
  const text = printable(node.label);
  const width = ctx.measureText(text).width + size;
  const top = y + radius + size * 0.6;
  ctx.beginPath();
  ctx.roundRect(x - width / 2, top, width, size * 1.7, size * 0.35);
  ctx.fillStyle = theme.of('--sheet');
  ctx.fill();
  ctx.lineWidth = 1 / camera.scale;
  ctx.strokeStyle = theme.of('--line');
  ctx.stroke();
  ctx.fillStyle = theme.of('--ink');
  ctx.textAlign = 'center';
  ctx.textBaseline = 'middle';
  ctx.fillText(text, x, top + size * 0.88);
}
