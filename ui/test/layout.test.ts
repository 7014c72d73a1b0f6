import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Edge } from '../src/api.ts';
import { graphOf, endKey } from '../src/map/graph.ts';
import { arrange, CELL, HEADER, type Arrangement } from '../src/map/layout.ts';
import { readMemory, writeMemory } from '../src/map/memory.ts';
import { edge, end } from './builders.ts';

const at = (namespace: string, name: string) => end(name, { kind: 'deployment', namespace });
const calls = (client: string, server: string): Edge => {
  const of = (text: string) => at(...(text.split('/') as [string, string]));
  return edge({ client: of(client), server: of(server) });
};
const SHOP = [calls('shop/web', 'shop/cart'), calls('shop/web', 'shop/pay'), calls('shop/cart', 'data/redis'), calls('shop/pay', 'data/sql'), calls('ops/probe', 'shop/web')];
const place = (arrangement: Arrangement, namespace: string, name: string) => arrangement.nodes.get(endKey(at(namespace, name)))!;

/** No two nodes' cells overlap, every node is in its box, no two groups' boxes overlap. */
function assertSound(arrangement: Arrangement, what: string): void {
  const points = [...arrangement.nodes.values()];
  const columns = new Map<number, number[]>();
  for (const { x, y } of points) columns.set(x, [...(columns.get(x) ?? []), y]);
  for (const [x, ys] of columns) {
    ys.sort((a, b) => a - b);
    for (let i = 1; i < ys.length; i += 1) assert.ok(ys[i]! - ys[i - 1]! >= CELL.height, `${what}: two at x ${x}, y ${ys[i]}`);
  }
  const groups = arrangement.boxes.filter((box) => box.kind !== 'workload');
  for (const a of groups) {
    for (const b of groups) {
      if (a === b) continue;
      const apart = a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y;
      assert.ok(apart, `${what}: ${a.key} and ${b.key} overlap`);
    }
  }
  for (const { x, y } of points) {
    const { extent } = arrangement;
    assert.ok(x >= extent.x && x <= extent.x + extent.width && y >= extent.y && y <= extent.y + extent.height, `${what}: all of it is in the extent`);
  }
}

test('the_picture_is_a_function_of_who_talks_to_whom', () => {
  const first = arrange(graphOf(SHOP));
  assertSound(first, 'the shop');
  const again = arrange(graphOf([...SHOP].reverse().map((one) => ({ ...one, sent_bytes: 1e12 }))));
  for (const [key, point] of first.nodes) assert.deepEqual(again.nodes.get(key), point, key);
  assert.ok(place(first, 'shop', 'web').x < place(first, 'shop', 'cart').x, 'clients are left of their servers');
  const box = first.boxes.find(({ key }) => key === 'namespace:shop')!;
  assert.ok(place(first, 'shop', 'web').y > box.y + HEADER, 'names of boxes have their room');
});

test('who_comes_goes_and_comes_again_moves_nobody', () => {
  const first = arrange(graphOf(SHOP));
  const without = arrange(graphOf(SHOP.filter((one) => one.server.name !== 'cart' && one.client.name !== 'cart')), first.memory);
  for (const name of ['web', 'pay']) assert.deepEqual(place(without, 'shop', name), place(first, 'shop', name), name);
  const again = arrange(graphOf(SHOP), without.memory);
  for (const [key, point] of first.nodes) assert.deepEqual(again.nodes.get(key), point, key);
  const more = arrange(graphOf([...SHOP, calls('shop/web', 'shop/new')]), again.memory);
  assertSound(more, 'one more');
  const relative = (arrangement: Arrangement, name: string) => {
    const [a, b] = [place(arrangement, 'shop', 'web'), place(arrangement, 'shop', name)];
    return [b.x - a.x, b.y - a.y];
  };
  for (const name of ['cart', 'pay']) assert.deepEqual(relative(more, name), relative(first, name), `${name} stays beside web`);
});

test('opening_a_box_and_closing_it_gives_the_same_picture', () => {
  const closed = SHOP.map((one) => ({ ...one, server: one.server.namespace === 'data' ? end('data', { kind: 'namespace', namespace: 'data' }) : one.server }));
  const first = arrange(graphOf(closed));
  const opened = arrange(graphOf(SHOP), first.memory);
  assertSound(opened, 'opened');
  const again = arrange(graphOf(closed), opened.memory);
  for (const [key, point] of first.nodes) assert.deepEqual(again.nodes.get(key), point, key);
});

test('pods_lie_in_their_workloads_box', () => {
  const pod = (name: string) => end(name, { kind: 'pod', namespace: 'shop', workload: 'cart' });
  const arrangement = arrange(graphOf([...SHOP.slice(1, 2), edge({ client: at('shop', 'web'), server: pod('cart-a') }), edge({ client: at('shop', 'web'), server: pod('cart-b') })]));
  assertSound(arrangement, 'pods');
  const box = arrangement.boxes.find(({ key }) => key === 'shop/cart')!;
  assert.deepEqual([box.kind, box.label, box.opens], ['workload', 'cart', 'shop/cart']);
  for (const name of ['cart-a', 'cart-b']) {
    const { x, y } = arrangement.nodes.get(endKey(pod(name)))!;
    assert.ok(x > box.x && x < box.x + box.width && y > box.y && y < box.y + box.height, name);
  }
});

test('a_thousand_nodes_with_names_that_change_stay_sound_and_bounded', () => {
  let memory = arrange(graphOf(SHOP)).memory;
  for (let round = 0; round < 12; round += 1) {
    const edges = Array.from({ length: 1000 }, (_, i) => calls(`team-${i % 20}/pod-${round % 3 === 0 ? i : i * 31 + round}`, `team-${(i * 7) % 20}/db`));
    const arrangement = arrange(graphOf(edges), memory);
    assertSound(arrangement, `round ${round}`);
    memory = arrangement.memory;
    const slots = [...memory.values()].reduce((sum, one) => sum + one.size, 0);
    assert.ok(slots <= 8000, `${slots} slots are remembered`);
  }
});

test('a_ring_has_a_place_for_everybody', () => {
  const arrangement = arrange(graphOf([calls('a/x', 'b/y'), calls('b/y', 'c/z'), calls('c/z', 'a/x'), calls('a/x', 'a/x')]));
  assert.equal(arrangement.nodes.size, 3);
  assertSound(arrangement, 'a ring');
});

test('the_memory_is_read_as_it_was_written_and_anything_else_is_nothing', () => {
  const { memory } = arrange(graphOf(SHOP));
  assert.deepEqual(readMemory(writeMemory(memory)), memory);
  for (const text of ['', 'null', '{"a":1}', '[[1,[["a",-1,1e9]]]]', '[["a",[["b",0.5,2]]]]']) {
    for (const slots of readMemory(text).values()) assert.equal(slots.size, 0, text);
  }
});
