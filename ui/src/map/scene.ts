// A picture made ready to be drawn and to be pointed at: where each link runs, and what lies under a point. Pure.
import type { Graph, MapLink, MapEnd } from './graph.ts';
import type { Arrangement, Box, Point } from './layout.ts';
import { WIDTHS, widthStep } from './scales.ts';

/** A link's way: a quadratic curve, its middle, and the way in which it ends. */
export interface Route {
  link: MapLink;
  width: number;
  from: Point;
  bend: Point;
  to: Point;
  middle: Point;
}

export interface Spot {
  node: MapEnd;
  x: number;
  y: number;
  radius: number;
}

export interface Scene {
  spots: Map<string, Spot>;
  routes: Route[];
  boxes: Box[];
}

/** What lies under a point. */
export type Target =
  | { kind: 'open'; node: MapEnd }
  | { kind: 'close'; box: Box }
  | { kind: 'node'; node: MapEnd }
  | { kind: 'link'; link: MapLink }
  | null;

/** How large nodes are, in world units. */
export function radiusOf(node: MapEnd): number {
  if (node.end.kind === 'namespace' || node.end.kind === 'node') return 21;
  if (node.end.kind === 'pod' || node.end.kind === 'container') return 11;
  return 15;
}

/** The sign by which a node is opened, from its middle. */
export const OPEN_SIGN = { dx: 0.8, dy: -0.8, radius: 8 } as const;
/** The sign by which a box is closed, from its upper right corner. */
export const CLOSE_SIGN = { dx: -17, dy: 15, radius: 8 } as const;
/** How much a link bends, of its length; at most so much. */
const BEND = 0.13;
const BEND_MAX = 46;
/** Between a link's end and the circle. */
const CLEARANCE = 3;

export function sceneOf(graph: Graph, arrangement: Arrangement): Scene {
  const spots = new Map<string, Spot>();
  for (const node of graph.nodes.values()) {
    const point = arrangement.nodes.get(node.key);
    if (point !== undefined) spots.set(node.key, { node, ...point, radius: radiusOf(node) });
  }
  const routes: Route[] = [];
  for (const link of graph.links.values()) {
    const [from, to] = [spots.get(link.client), spots.get(link.server)];
    if (from !== undefined && to !== undefined) routes.push(routeOf(link, from, to));
  }
  // Those that say something are drawn last, over the others.
  const weight = ({ link, width }: Route) => (['plain', 'healthy', 'unknown'].includes(link.mark) ? 0 : 100) + width;
  routes.sort((a, b) => weight(a) - weight(b) || (a.link.key < b.link.key ? -1 : 1));
  return { spots, routes, boxes: arrangement.boxes };
}

function routeOf(link: MapLink, from: Spot, to: Spot): Route {
  const width = WIDTHS[widthStep(link.bytes)] ?? 1;
  if (from === to) return loop(link, width, from);
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy) || 1;
  const off = Math.min(BEND_MAX, length * BEND);
  // Always to the same side of its direction, so that there and back are two lines.
  const bend = { x: (from.x + to.x) / 2 + (dy / length) * 2 * off, y: (from.y + to.y) / 2 - (dx / length) * 2 * off };
  const start = towards(from, bend, from.radius + CLEARANCE);
  const end = towards(to, bend, to.radius + CLEARANCE + 1);
  return { link, width, from: start, bend, to: end, middle: along(start, bend, end, 0.5) };
}

/** From a node to itself: over its upper left. */
function loop(link: MapLink, width: number, { x, y, radius }: Spot): Route {
  const from = { x: x - radius * 0.95, y: y - 2 };
  const to = { x: x - 3, y: y - radius - CLEARANCE };
  const bend = { x: x - radius * 2.9, y: y - radius * 2.9 };
  return { link, width, from, bend, to, middle: along(from, bend, to, 0.5) };
}

function towards(from: Point, to: Point, by: number): Point {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  return { x: from.x + ((to.x - from.x) / length) * by, y: from.y + ((to.y - from.y) / length) * by };
}

/** A point of a quadratic curve, `t` from 0 to 1. */
export function along(from: Point, bend: Point, to: Point, t: number): Point {
  const [a, b, c] = [(1 - t) ** 2, 2 * t * (1 - t), t ** 2];
  return { x: a * from.x + b * bend.x + c * to.x, y: a * from.y + b * bend.y + c * to.y };
}

/** How far a point is from a route, in world units. */
function distance(route: Route, point: Point): number {
  let best = Number.POSITIVE_INFINITY;
  let last = route.from;
  for (let step = 1; step <= 12; step += 1) {
    const next = along(route.from, route.bend, route.to, step / 12);
    best = Math.min(best, toSegment(point, last, next));
    last = next;
  }
  return best;
}

function toSegment(point: Point, a: Point, b: Point): number {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const t = Math.max(0, Math.min(1, ((point.x - a.x) * dx + (point.y - a.y) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(point.x - a.x - t * dx, point.y - a.y - t * dy);
}

/** What lies under a point of the world. `reach`: how near is near enough, in world units. */
export function targetAt(scene: Scene, point: Point, reach: number): Target {
  for (const spot of scene.spots.values()) {
    const [dx, dy] = [point.x - spot.x, point.y - spot.y];
    if (Math.abs(dx) > 70 || Math.abs(dy) > 60) continue;
    const [sx, sy] = [dx - OPEN_SIGN.dx * spot.radius, dy - OPEN_SIGN.dy * spot.radius];
    if (spot.node.opens !== null && Math.hypot(sx, sy) <= OPEN_SIGN.radius + reach / 2) return { kind: 'open', node: spot.node };
  }
  for (const box of scene.boxes) {
    const [dx, dy] = [point.x - (box.x + box.width + CLOSE_SIGN.dx), point.y - (box.y + CLOSE_SIGN.dy)];
    if (box.opens !== null && Math.hypot(dx, dy) <= CLOSE_SIGN.radius + reach / 2) return { kind: 'close', box };
  }
  for (const spot of scene.spots.values()) {
    const [dx, dy] = [Math.abs(point.x - spot.x), point.y - spot.y];
    if (Math.hypot(dx, dy) <= spot.radius + reach / 2) return { kind: 'node', node: spot.node };
    // Its name, under it.
    if (dx < 50 && dy > 0 && dy < spot.radius + 20) return { kind: 'node', node: spot.node };
  }
  let best: Route | null = null;
  let bestDistance = reach;
  for (const route of scene.routes) {
    const off = distance(route, point) - route.width / 2;
    if (off < bestDistance) [best, bestDistance] = [route, off];
  }
  return best === null ? null : { kind: 'link', link: best.link };
}

/** The node that lies nearest in a direction. Straight ahead is nearer than aside. */
export function neighbour(scene: Scene, from: string, direction: 'left' | 'right' | 'up' | 'down'): string | null {
  const here = scene.spots.get(from);
  if (here === undefined) return null;
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const spot of scene.spots.values()) {
    if (spot === here) continue;
    const [dx, dy] = [spot.x - here.x, spot.y - here.y];
    const [ahead, aside] = direction === 'left' ? [-dx, dy] : direction === 'right' ? [dx, dy] : direction === 'up' ? [-dy, dx] : [dy, dx];
    if (ahead <= 1) continue;
    const off = ahead + 2.5 * Math.abs(aside);
    if (off < bestDistance) [best, bestDistance] = [spot.node.key, off];
  }
  return best;
}

/** Nodes in the order in which they are read: by box, from the left, from above. */
export function reading(scene: Scene): string[] {
  const spots = [...scene.spots.values()];
  spots.sort((a, b) => (a.node.group < b.node.group ? -1 : a.node.group > b.node.group ? 1 : a.x - b.x || a.y - b.y));
  return spots.map((spot) => spot.node.key);
}

/** The picture part of the way from one to another: what is in both moves, what is new is at its place. */
export function between(before: Arrangement, after: Arrangement, part: number): Arrangement {
  const mix = (a: number, b: number) => a + (b - a) * part;
  const nodes = new Map<string, Point>();
  for (const [key, to] of after.nodes) {
    const from = before.nodes.get(key);
    nodes.set(key, from === undefined ? to : { x: mix(from.x, to.x), y: mix(from.y, to.y) });
  }
  const old = new Map(before.boxes.map((box) => [box.key, box]));
  const boxes = after.boxes.map((to) => {
    const from = old.get(to.key);
    if (from === undefined) return to;
    return { ...to, x: mix(from.x, to.x), y: mix(from.y, to.y), width: mix(from.width, to.width), height: mix(from.height, to.height) };
  });
  return { ...after, nodes, boxes };
}
