// Where everything is. Pure: a graph and what is remembered go in, places and what is to be remembered come out.
//
// The picture is boxes in boxes: groups, in them nodes and opened workloads, in those pods. In every box the members stand in
// columns, clients left of their servers. A member's slot (column and row) is chosen once, from the names and the links that
// are there, and kept: a member that comes back finds it again, one that is new takes the free slot that is nearest to whom
// it talks to, and nothing else moves. Opening or closing a box makes it larger or smaller, which shifts what is beside
// and below it and changes no slot: closing it again gives the same picture.
//
// No traffic goes into it, only who talks to whom, so numbers that change move nothing.
import type { Graph, MapGroup } from './graph.ts';
import type { Extent } from './scales.ts';

/** Room of a node with its name under it. */
export const CELL = { width: 128, height: 76 } as const;
const GAP = { root: 46, box: 4 } as const;
const PAD = 14;
/** Of a group's box, above its members. */
export const HEADER = 30;
/** Width for each unit of height that a box is given where it can be chosen, by the window's shape; 0: one column. */
const ASPECTS = { wide: { root: 2.1, box: 1.7 }, tall: { root: 0, box: 0.8 } } as const;
export type Shape = keyof typeof ASPECTS;
/** With more members than this, columns are filled without regard to who is whose client. */
const RANKED_MAX = 36;
/** Remembered slots at most: beyond, those of members that are not there are forgotten. */
const REMEMBERED_MAX = 5000;

export interface Slot {
  column: number;
  row: number;
}

/** Slots by box and member. */
export type Memory = ReadonlyMap<string, ReadonlyMap<string, Slot>>;

export interface Point {
  x: number;
  y: number;
}

export interface Box extends Extent {
  /** The group's key, or the opened workload's as `namespace/name`. */
  key: string;
  kind: MapGroup['kind'] | 'workload';
  label: string;
  /** What closing it takes out of `expand`. */
  opens: string | null;
}

export interface Arrangement {
  /** Middles. */
  nodes: Map<string, Point>;
  /** Outer ones first. */
  boxes: Box[];
  extent: Extent;
  memory: Memory;
}

/** A member of a box, laid out inside already. */
interface Member {
  key: string;
  width: number;
  height: number;
  /** Puts it with its upper left corner here. */
  put: (x: number, y: number) => void;
}

/** What is between members, and how wide a box is for its height where it can be chosen. */
interface Room {
  side: number;
  under: number;
  aspect: number;
  /** Whether whoever is whose server begins a column of its own. */
  isRanked: boolean;
}

type Links = ReadonlyMap<string, ReadonlySet<string>>;

const ROOT = '';
const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Arranges a graph. What is remembered is of one shape. */
export function arrange(graph: Graph, before: Memory = new Map(), shape: Shape = 'wide'): Arrangement {
  const out: Arrangement = { nodes: new Map(), boxes: [], extent: { x: 0, y: 0, width: 0, height: 0 }, memory: new Map() };
  const memory = new Map<string, Map<string, Slot>>();
  const groups = [...graph.groups.values()].sort((a, b) => order(a.key, b.key));
  const links = linksBetween(graph);
  const members = groups.map((group) => groupMember(graph, group, links, before, memory, shape, out));
  const inner = stack(ROOT, members, links.groups, before, memory, GAP.root, shape);
  // About the middle of the height: a column that grows moves no other.
  inner.put(0, -inner.height / 2);
  out.boxes.sort((a, b) => Number(a.kind === 'workload') - Number(b.kind === 'workload') || order(a.key, b.key));
  out.extent = { x: 0, y: -inner.height / 2, width: inner.width, height: inner.height };
  out.memory = trimmed(before, memory);
  return out;
}

interface BetweenAll {
  groups: Links;
  members: Links;
}

/** Who is whose client: among groups, and among the members of each. */
function linksBetween(graph: Graph): BetweenAll {
  const [groups, members] = [new Map<string, Set<string>>(), new Map<string, Set<string>>()];
  const add = (into: Map<string, Set<string>>, from: string, to: string) => {
    if (from === to) return;
    const set = into.get(from) ?? new Set();
    into.set(from, set);
    set.add(to);
  };
  for (const link of graph.links.values()) {
    const [client, server] = [graph.nodes.get(link.client), graph.nodes.get(link.server)];
    if (client === undefined || server === undefined) continue;
    add(groups, client.group, server.group);
    if (client.group !== server.group) continue;
    add(members, client.workload ?? client.key, server.workload ?? server.key);
    if (client.workload === server.workload) add(members, client.key, server.key);
  }
  return { groups, members };
}

function groupMember(graph: Graph, group: MapGroup, links: BetweenAll, before: Memory, memory: Map<string, Map<string, Slot>>, shape: Shape, out: Arrangement): Member {
  const keys = [...group.nodes].sort(order);
  const cell = (key: string): Member => ({
    key,
    ...CELL,
    put: (x, y) => out.nodes.set(key, { x: x + CELL.width / 2, y: y + 30 }),
  });
  if (!group.isOpen && keys.length === 1 && keys[0] !== undefined) return { ...cell(keys[0]), key: group.key };
  const byWorkload = new Map<string, string[]>();
  const members: Member[] = [];
  for (const key of keys) {
    const workload = graph.nodes.get(key)?.workload ?? null;
    if (workload === null) members.push(cell(key));
    else byWorkload.set(workload, [...(byWorkload.get(workload) ?? []), key]);
  }
  for (const [workload, pods] of [...byWorkload].sort(([a], [b]) => order(a, b))) {
    const inside = stack(workload, pods.map(cell), links.members, before, memory, GAP.box, shape);
    const label = workload.slice(workload.indexOf('/') + 1);
    members.push(boxed(workload, inside, { kind: 'workload', label, opens: workload }, out));
  }
  const inside = stack(group.key, members.sort((a, b) => order(a.key, b.key)), links.members, before, memory, GAP.box, shape);
  return boxed(group.key, inside, { kind: group.kind, label: group.label, opens: group.opens }, out);
}

function boxed(key: string, inside: Member, about: Pick<Box, 'kind' | 'label' | 'opens'>, out: Arrangement): Member {
  const [width, height] = [Math.max(inside.width, 110) + 2 * PAD, inside.height + HEADER + PAD];
  return {
    key,
    width,
    height,
    put: (x, y) => {
      out.boxes.push({ key, x, y, width, height, ...about });
      inside.put(x + (width - inside.width) / 2, y + HEADER);
    },
  };
}

/** Members in their columns: groups about the middle of the height, what is in a box from its top. */
function stack(key: string, members: Member[], links: Links, before: Memory, memory: Map<string, Map<string, Slot>>, gap: number, shape: Shape): Member {
  const sideGap = gap === GAP.root ? gap * 1.6 : gap + 14;
  const room = { side: sideGap, under: gap, aspect: ASPECTS[shape][key === ROOT ? 'root' : 'box'], isRanked: shape === 'wide' };
  const slots = slotsOf(members, links, before.get(key) ?? new Map(), room);
  memory.set(key, slots);
  const byKey = new Map(members.map((member) => [member.key, member]));
  const columns: (Member | null)[][] = [];
  for (const [name, { column, row }] of slots) {
    while (columns.length <= column) columns.push([]);
    const rows = columns[column] ?? [];
    while (rows.length <= row) rows.push(null);
    rows[row] = byKey.get(name) ?? null;
  }
  // What was last and is gone leaves no room, what was between keeps it.
  for (const rows of columns) while (rows.length > 0 && rows[rows.length - 1] === null) rows.pop();
  while (columns.length > 0 && columns[columns.length - 1]?.length === 0) columns.pop();
  const widths = columns.map((rows) => Math.max(CELL.width, ...rows.map((member) => member?.width ?? 0)));
  const heights = columns.map((rows) => rows.reduce((sum, member) => sum + (member?.height ?? CELL.height), 0) + gap * Math.max(0, rows.length - 1));
  const height = Math.max(0, ...heights);
  const width = widths.reduce((sum, one) => sum + one, 0) + sideGap * Math.max(0, columns.length - 1);
  return {
    key,
    width,
    height,
    put: (x, y) => {
      let left = x;
      columns.forEach((rows, column) => {
        let top = key === ROOT ? y + (height - (heights[column] ?? 0)) / 2 : y;
        for (const member of rows) {
          member?.put(left + ((widths[column] ?? 0) - member.width) / 2, top);
          top += (member?.height ?? CELL.height) + gap;
        }
        left += (widths[column] ?? 0) + sideGap;
      });
    },
  };
}

const at = (slot: Slot): string => `${slot.column},${slot.row}`;

/** A slot for each member: the remembered one, else a new one. Those of members that are gone stay, at the end of the map. */
function slotsOf(members: Member[], links: Links, before: ReadonlyMap<string, Slot>, room: Room): Map<string, Slot> {
  const kept = new Map<string, Slot>();
  const taken = new Set<string>();
  for (const { key } of members) {
    const slot = before.get(key);
    if (slot === undefined || taken.has(at(slot))) continue;
    kept.set(key, slot);
    taken.add(at(slot));
  }
  if (kept.size === 0) return firstSlots(members, links, room);
  const reversed = reverse(links);
  for (const { key } of members) {
    if (kept.has(key)) continue;
    const slot = nearestFree(kept, taken, wish(key, kept, links, reversed), members.length);
    kept.set(key, slot);
    taken.add(at(slot));
  }
  for (const [key, slot] of before) if (!kept.has(key) && !taken.has(at(slot))) kept.set(key, slot);
  return kept;
}

function reverse(links: Links): Links {
  const reversed = new Map<string, Set<string>>();
  for (const [from, tos] of links) {
    for (const to of tos) {
      const set = reversed.get(to) ?? new Set();
      reversed.set(to, set);
      set.add(from);
    }
  }
  return reversed;
}

/** Where a new member would like to be: right of its clients, left of its servers. */
function wish(key: string, kept: ReadonlyMap<string, Slot>, links: Links, reversed: Links): Slot | null {
  const places: Slot[] = [];
  for (const server of links.get(key) ?? []) {
    const slot = kept.get(server);
    if (slot !== undefined) places.push({ column: slot.column - 1, row: slot.row });
  }
  for (const client of reversed.get(key) ?? []) {
    const slot = kept.get(client);
    if (slot !== undefined) places.push({ column: slot.column + 1, row: slot.row });
  }
  if (places.length === 0) return null;
  const mean = (of: (slot: Slot) => number) => places.reduce((sum, slot) => sum + of(slot), 0) / places.length;
  return { column: Math.max(0, mean((slot) => slot.column)), row: mean((slot) => slot.row) };
}

function nearestFree(kept: ReadonlyMap<string, Slot>, taken: ReadonlySet<string>, near: Slot | null, count: number): Slot {
  const present = [...kept.values()];
  const columns = Math.max(...present.map((slot) => slot.column)) + 1;
  const rows = Math.max(Math.max(...present.map((slot) => slot.row)) + 1, Math.ceil(Math.sqrt(count)));
  const wanted = near ?? { column: columns - 1, row: rows - 1 };
  let best: Slot = { column: columns, row: 0 };
  let bestDistance = Number.POSITIVE_INFINITY;
  for (let column = 0; column <= columns; column += 1) {
    for (let row = 0; row < rows; row += 1) {
      // A column more makes the picture wider: only where nothing else is free.
      const distance = Math.abs(column - wanted.column) + Math.abs(row - wanted.row) + (column === columns ? 1000 : 0);
      if (distance < bestDistance && !taken.has(`${column},${row}`)) [best, bestDistance] = [{ column, row }, distance];
    }
  }
  return best;
}

/** Columns by how far a member is from those whom no other member calls; a column is as high as it takes for the aspect. */
function firstSlots(members: Member[], links: Links, { side, under, aspect, isRanked: mayRank }: Room): Map<string, Slot> {
  const ranks = ranksOf(members.map(({ key }) => key), links);
  const isRanked = mayRank && members.length <= RANKED_MAX;
  const area = members.reduce((sum, { width, height }) => sum + (width + side) * (height + under), 0);
  const tallest = Math.max(0, ...members.map(({ height }) => height));
  const budget = aspect === 0 ? Number.POSITIVE_INFINITY : Math.max(tallest, Math.sqrt(area / aspect));
  const sorted = [...members].sort((a, b) => (ranks.get(a.key) ?? 0) - (ranks.get(b.key) ?? 0) || order(a.key, b.key));
  const columns: Member[][] = [];
  let [filled, rank] = [0, -1];
  for (const member of sorted) {
    const own = ranks.get(member.key) ?? 0;
    if (columns.length === 0 || filled + member.height > budget * 1.05 || (isRanked && own !== rank)) {
      columns.push([]);
      filled = 0;
    }
    columns[columns.length - 1]?.push(member);
    filled += member.height + under;
    rank = own;
  }
  return rowsOf(columns, reverse(links), isRanked);
}

/** Each column in the order of whom its members are servers of, then by name; without ranks as it was filled. */
function rowsOf(columns: Member[][], clients: Links, isRanked: boolean): Map<string, Slot> {
  const slots = new Map<string, Slot>();
  columns.forEach((members, column) => {
    const middle = (key: string): number => {
      const rows = [...(clients.get(key) ?? [])].flatMap((client) => slots.get(client)?.row ?? []);
      return rows.length === 0 ? Number.POSITIVE_INFINITY : rows.reduce((sum, row) => sum + row, 0) / rows.length;
    };
    const keyed = members.map(({ key }) => ({ key, middle: middle(key) }));
    if (isRanked) keyed.sort((a, b) => (a.middle === b.middle ? order(a.key, b.key) : a.middle - b.middle));
    keyed.forEach(({ key }, row) => slots.set(key, { column, row }));
  });
  return slots;
}

/** How many steps each member is from one that no other calls; in a ring, from its first by name. */
function ranksOf(keys: string[], links: Links): Map<string, number> {
  const present = new Set(keys);
  const called = new Set<string>();
  for (const key of keys) for (const server of links.get(key) ?? []) if (present.has(server)) called.add(server);
  const ranks = new Map<string, number>();
  const walk = (from: string[]) => {
    let now = from;
    for (const key of now) ranks.set(key, 0);
    for (let rank = 1; now.length > 0; rank += 1) {
      const next: string[] = [];
      for (const key of now) {
        for (const server of links.get(key) ?? []) {
          if (!present.has(server) || ranks.has(server)) continue;
          ranks.set(server, rank);
          next.push(server);
        }
      }
      now = next;
    }
  };
  walk(keys.filter((key) => !called.has(key) && (links.get(key)?.size ?? 0) > 0));
  for (const key of keys) if (!ranks.has(key) && (links.get(key)?.size ?? 0) > 0) walk([key]);
  for (const key of keys) if (!ranks.has(key)) ranks.set(key, 0);
  return ranks;
}

/** What is remembered of boxes that are not open now stays, too, while there is room. */
function trimmed(before: Memory, now: Map<string, Map<string, Slot>>): Memory {
  let room = REMEMBERED_MAX;
  for (const slots of now.values()) room -= slots.size;
  for (const [key, slots] of before) {
    if (now.has(key) || slots.size > room) continue;
    room -= slots.size;
    now.set(key, new Map(slots));
  }
  return now;
}
