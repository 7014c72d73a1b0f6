// What each mark looks like: a colour, a dash and a sign, so that no difference is told by colour alone. Colours are names of
// the page's CSS variables (app.css, map.css), read when the picture is drawn, so that dark and light are theirs.
import type { Mark } from './graph.ts';

export interface Look {
  /** A CSS variable. */
  colour: string;
  /** Lengths of line and gap; empty: solid. */
  dash: readonly number[];
  /** Drawn at the middle of the link; empty: none. */
  sign: string;
  /** In the legend and for screen readers. */
  words: string;
}

export const LOOKS: Record<Mark, Look> = {
  sick: { colour: '--bad', dash: [9, 4], sign: '!', words: 'unhealthy' },
  new: { colour: '--good', dash: [], sign: '+', words: 'new' },
  gone: { colour: '--soft', dash: [2, 5], sign: '−', words: 'gone' },
  shifted: { colour: '--warn', dash: [12, 3, 3, 3], sign: '≠', words: 'shifted' },
  better: { colour: '--accent', dash: [], sign: '✓', words: 'better' },
  healthy: { colour: '--link', dash: [], sign: '', words: 'healthy' },
  unknown: { colour: '--link-faint', dash: [1.5, 4], sign: '', words: 'too little to judge' },
  plain: { colour: '--link', dash: [], sign: '', words: 'not judged' },
};

/** The words of a mark in a comparison, where one that is not changed is plain, and a sick one became so. */
export function markWords(mark: Mark, isComparison: boolean): string {
  if (!isComparison) return LOOKS[mark].words;
  return mark === 'plain' ? 'unchanged' : mark === 'sick' ? 'sicker' : LOOKS[mark].words;
}
