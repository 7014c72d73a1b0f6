// The layout's memory in the browser's own store, so that a reload shows the picture as it was. It holds names and slots of
// this server's map alone; where the store is switched off or full, nothing is kept and nothing breaks.
import type { Memory, Shape, Slot } from './layout.ts';

const key = (shape: Shape): string => `weir-map-1-${shape}`;

export function recall(shape: Shape): Memory {
  try {
    return readMemory(localStorage.getItem(key(shape)) ?? '');
  } catch {
    return new Map();
  }
}

export function remember(shape: Shape, memory: Memory): void {
  try {
    localStorage.setItem(key(shape), writeMemory(memory));
  } catch {
    // As above.
  }
}

export function forget(shape: Shape): void {
  try {
    localStorage.removeItem(key(shape));
  } catch {
    // As above.
  }
}

/** The same memory is the same text. */
export function writeMemory(memory: Memory): string {
  const sorted = <T>(map: ReadonlyMap<string, T>): [string, T][] => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(sorted(memory).map(([box, slots]) => [box, sorted(slots).map(([key, { column, row }]) => [key, column, row])]));
}

/** Reads what was written; anything else is nothing. */
export function readMemory(text: string): Memory {
  const memory = new Map<string, Map<string, Slot>>();
  const isSlot = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0 && (value as number) < 1000;
  try {
    for (const [box, members] of JSON.parse(text) as [string, [string, number, number][]][]) {
      const slots = new Map<string, Slot>();
      for (const [key, column, row] of members) {
        if (typeof key === 'string' && isSlot(column) && isSlot(row)) slots.set(key, { column, row });
      }
      if (typeof box === 'string') memory.set(box, slots);
    }
    return memory;
  } catch {
    return new Map();
  }
}
