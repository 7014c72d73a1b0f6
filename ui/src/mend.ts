// A failure in a person's words: what is wrong, and how to mend it. Pure.
import type { Failure } from './poll.ts';

export interface Remedy {
  what: string;
  /** The server's or the parser's own words, shown as they are. */
  detail: string | null;
  mend: string;
}

export function remedyFor(failure: Failure): Remedy {
  switch (failure.kind) {
    case 'unreachable':
      return {
        what: 'The server does not answer.',
        detail: null,
        mend: 'Check that weir still runs where this page came from: start it with “weir up” or “weir server”, or look at its log. This page goes on trying.',
      };
    case 'timeout':
      return {
        what: 'The server takes too long to answer.',
        detail: failure.message,
        mend: 'Choose a shorter span, and see with “weir status” what keeps the server busy.',
      };
    case 'format':
      return {
        what: 'The server’s answer is not one that this page can read.',
        detail: failure.message,
        mend: 'Page and server may be of different versions, or something between them answers instead: reload the page, then compare with “weir edges -o json”.',
      };
    case 'status':
      return statusRemedy(failure.status ?? 0, failure.message);
  }
}

function statusRemedy(status: number, message: string): Remedy {
  if (status === 401 || status === 403) {
    return {
      what: 'The server asks for its token.',
      detail: message,
      mend: 'Enter the content of the file that the server was given with --token-file. It is kept for this tab only.',
    };
  }
  if (status === 404) {
    return {
      what: 'What answers here has no weir API.',
      detail: message,
      mend: 'Check that the address is weir’s own, or that the proxy in front of it passes “api/” on too.',
    };
  }
  if (status >= 500) {
    return {
      what: `The server failed to answer (status ${status}).`,
      detail: message,
      mend: 'See “weir status” and the server’s log. This page goes on trying.',
    };
  }
  return {
    what: `The server refused the request (status ${status}).`,
    detail: message,
    mend: 'Choose another span, grouping or filter, or reload the page if the server was changed meanwhile.',
  };
}
