// Server-sent events out of the bytes of an answer (HTML, "Server-sent events", 9.2.6), as far as the server sends them: name and
// data. `EventSource` itself cannot carry a token.

export interface ServerEvent {
  name: string;
  data: string;
}

/** Reads one stream. Pieces may end anywhere, within a character too. */
export class EventReader {
  readonly #decoder = new TextDecoder();
  #rest = '';
  /** The last piece ended an event or a comment. */
  isAlive = false;

  /** The events that end in this piece. */
  read(piece: Uint8Array): ServerEvent[] {
    const blocks = (this.#rest + this.#decoder.decode(piece, { stream: true })).split(/\r?\n\r?\n/);
    this.#rest = blocks.pop() ?? '';
    this.isAlive = blocks.length > 0;
    return blocks.flatMap(eventOf);
  }
}

function eventOf(block: string): ServerEvent[] {
  let name = 'message';
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^(\w+):? ?(.*)$/s.exec(line) ?? [];
    if (field === 'event') name = value ?? '';
    else if (field === 'data') data.push(value ?? '');
  }
  return data.length === 0 ? [] : [{ name, data: data.join('\n') }];
}
