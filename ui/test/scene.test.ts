import assert from 'node:assert/strict';
import { test } from 'node:test';
import { graphOf, MARKS, endKey } from '../src/map/graph.ts';
import { arrange } from '../src/map/layout.ts';
import { LOOKS, markWords } from '../src/map/looks.ts';
import { fit, SCALE_MAX, WIDTHS, WIDTH_STEPS, widthStep, within, zoomed } from '../src/map/scales.ts';
import { along, between, CLOSE_SIGN, neighbour, OPEN_SIGN, reading, sceneOf, targetAt } from '../src/map/scene.ts';
import { edge, end } from './builders.ts';

const web = end('web', { kind: 'deployment', namespace: 'shop' });
const cart = end('cart', { kind: 'deployment', namespace: 'shop' });
const graph = graphOf([edge({ client: web, server: cart, sent_bytes: 400_000 }), edge({ client: cart, server: web }), edge({ client: cart, server: cart })]);
const arrangement = arrange(graph);
const scene = sceneOf(graph, arrangement);

test('a_line_is_the_wider_the_more_bytes_and_says_nothing_else', () => {
  assert.equal(WIDTHS.length, WIDTH_STEPS.length + 1);
  assert.deepEqual([0, 9_999, 10_000, 1e12].map(widthStep), [0, 0, 1, 5]);
  for (let step = 1; step < WIDTHS.length; step += 1) assert.ok(WIDTHS[step]! > WIDTHS[step - 1]!);
});

test('no_two_marks_that_say_something_look_alike_without_colour', () => {
  const telling = MARKS.filter((mark) => LOOKS[mark].sign !== '');
  assert.deepEqual(telling, ['sick', 'new', 'gone', 'shifted', 'better']);
  assert.equal(new Set(telling.map((mark) => LOOKS[mark].sign)).size, telling.length);
  assert.notDeepEqual(LOOKS.unknown.dash, LOOKS.healthy.dash);
  assert.deepEqual([markWords('sick', false), markWords('sick', true), markWords('plain', true)], ['unhealthy', 'sicker', 'unchanged']);
});

test('what_lies_under_a_point_is_the_sign_the_node_or_the_line', () => {
  const spot = scene.spots.get(endKey(web))!;
  assert.equal(targetAt(scene, spot, 4)?.kind, 'node');
  assert.equal(targetAt(scene, { x: spot.x + OPEN_SIGN.dx * spot.radius, y: spot.y + OPEN_SIGN.dy * spot.radius }, 4)?.kind, 'open');
  const [box] = scene.boxes;
  assert.equal(targetAt(scene, { x: box!.x + box!.width + CLOSE_SIGN.dx, y: box!.y + CLOSE_SIGN.dy }, 4)?.kind, 'close');
  for (const route of scene.routes) {
    const target = targetAt(scene, along(route.from, route.bend, route.to, 0.5), 4);
    assert.deepEqual([target?.kind, target?.kind === 'link' && target.link.key], ['link', route.link.key], 'there, back and to itself are three lines');
  }
  assert.equal(targetAt(scene, { x: -500, y: -500 }, 4), null);
});

test('arrows_go_to_the_nearest_node_in_their_direction', () => {
  const [a, b] = [scene.spots.get(endKey(web))!, scene.spots.get(endKey(cart))!];
  const [left, right] = a.x < b.x ? [a, b] : [b, a];
  assert.notEqual(left.x, right.x);
  assert.equal(neighbour(scene, left.node.key, 'right'), right.node.key);
  assert.equal(neighbour(scene, right.node.key, 'left'), left.node.key);
  assert.equal(neighbour(scene, left.node.key, 'left'), null);
  assert.deepEqual(reading(scene), [left.node.key, right.node.key]);
});

test('a_zoom_keeps_the_point_under_the_pointer_and_a_fit_shows_all', () => {
  const camera = fit({ x: -100, y: 50, width: 2000, height: 300 }, 800, 600);
  for (const [x, y] of [[-100, 50], [1900, 350]] as const) {
    const [sx, sy] = [(x - camera.x) * camera.scale, (y - camera.y) * camera.scale];
    assert.ok(sx >= 0 && sx <= 800 && sy >= 0 && sy <= 600);
  }
  const nearer = zoomed(camera, 2, 300, 200);
  assert.ok(Math.abs(300 / camera.scale + camera.x - (300 / nearer.scale + nearer.x)) < 1e-9);
  assert.equal(zoomed(camera, 1e9, 0, 0).scale, SCALE_MAX);
  assert.deepEqual(fit({ x: 0, y: 0, width: 0, height: 0 }, 800, 600), { x: 0, y: 0, scale: 1 });
  const shifted = within({ x: 0, y: 0, scale: 1 }, { x: 2000, y: 10 }, 800, 600);
  assert.deepEqual(shifted, { x: 1270, y: -60, scale: 1 });
});

test('half_way_between_two_pictures_is_half_way', () => {
  const moved = { ...arrangement, nodes: new Map([...arrangement.nodes].map(([key, { x, y }]) => [key, { x: x + 100, y }])) };
  const half = between(arrangement, moved, 0.5);
  for (const [key, { x }] of arrangement.nodes) assert.equal(half.nodes.get(key)?.x, x + 50);
});
