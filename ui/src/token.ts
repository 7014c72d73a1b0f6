// The server's token, where it asks for one. Kept for this tab only, sent as `Authorization: Bearer`, never put in the URL.
const KEY = 'weir-token';

export function readToken(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    // Storage is switched off: the token then lasts until the page is reloaded.
    return null;
  }
}

export function keepToken(token: string): void {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // As above.
  }
}
