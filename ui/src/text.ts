// Text from the network, made safe to look at.
//
// Process, container and host names are chosen by whoever runs the workload. Svelte writes them as text, so no markup is
// run; what is left are characters that are invisible or that reorder their neighbours (bidirectional controls), by which
// one name can look like another. They are written out as their code points. The full, unchanged name stays searchable.

// Categories Cc (controls), Cf (formats: zero-width, bidirectional), Co and Cs (private, lone surrogates), Zl and Zp (line
// ends), and every space but the plain one.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** The longest name that a cell holds; the kernel's own are at most 15 bytes, Kubernetes' at most 253. */
const NAME_LENGTH_MAX = 300;

/** What almost every name is: printable ASCII, of a cell's length. Spares the search through Unicode's categories. */
const PLAIN = /^[ -~]{0,300}$/;

/** The name with every invisible or reordering character written as `\u{202e}`, cut after 300 characters. */
export function printable(name: string): string {
  if (PLAIN.test(name)) return name;
  const whole = name.replace(UNSEEN, (character) => `\\u{${character.codePointAt(0)?.toString(16) ?? ''}}`);
  if (whole.length <= NAME_LENGTH_MAX) return whole;
  return `${Array.from(whole).slice(0, NAME_LENGTH_MAX).join('')}…`;
}
