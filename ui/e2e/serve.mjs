// Serves ui/dist under the server's strict Content-Security-Policy, and canned answers whose state the test switches.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLUSTERS, STATES } from './answers.mjs';

const SPAN = '5m';
/** The built page; another build's folder can be named. */
const DIST = process.env.WEIR_DIST ?? fileURLToPath(new URL('../dist', import.meta.url));
// As crates/server/src/http/mod.rs sends it.
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
  "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

/** Starts on a free port. `site.state` is the state to answer with; `down` closes every connection, `hang` never answers. */
export async function serve(state = 'full') {
  const site = {
    state,
    /** Every API request: its URL, and how many were in flight with it. */
    asked: [],
    inFlight: 0,
    inFlightMost: 0,
    /** Wait before each answer, milliseconds. */
    delayMs: 0,
    token: null,
    /** Whether edges can be subscribed to (states of a whole cluster only), and who has. */
    events: false,
    streams: new Set(),
  };
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://weir');
    response.setHeader('content-security-policy', CSP);
    response.setHeader('x-content-type-options', 'nosniff');
    const [, asked] = /^\/api\/v1\/(edges|series|connections|diff)$/.exec(url.pathname) ?? [];
    if (asked !== undefined && asked !== 'edges') {
      const cluster = CLUSTERS[site.state];
      if (site.state === 'down') return request.socket.destroy();
      const [status, body] = cluster?.(asked, url.searchParams) ?? [200, { items: [], completeness: STATES.empty(SPAN)[1].completeness }];
      response.writeHead(status, { 'content-type': 'application/json' });
      return response.end(JSON.stringify(body));
    }
    if (asked === 'edges') {
      site.asked.push(url);
      if (site.state === 'down') return request.socket.destroy();
      if (site.state === 'hang') return undefined;
      site.inFlight += 1;
      site.inFlightMost = Math.max(site.inFlightMost, site.inFlight);
      response.on('close', () => (site.inFlight -= 1));
      if (site.delayMs > 0) await new Promise((done) => setTimeout(done, site.delayMs));
      const cluster = CLUSTERS[site.state];
      const allowed = site.token !== null && request.headers.authorization === `Bearer ${site.token}`;
      const [status, body] = cluster?.('edges', url.searchParams) ?? STATES[site.state === 'token' && allowed ? 'full' : site.state](url.searchParams.get('since') ?? SPAN);
      if (site.events && status === 200 && (request.headers.accept ?? '').includes('text/event-stream')) {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        const stream = { response, tell: () => response.write(`event: answer\ndata: ${JSON.stringify(CLUSTERS[site.state]('edges', url.searchParams)[1])}\n\n`) };
        stream.tell();
        site.streams.add(stream);
        response.on('close', () => site.streams.delete(stream));
        return undefined;
      }
      response.writeHead(status, { 'content-type': 'application/json' });
      return response.end(JSON.stringify(body));
    }
    const path = normalize(url.pathname === '/' ? '/index.html' : url.pathname);
    try {
      const content = await readFile(join(DIST, path));
      response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' });
      return response.end(content);
    } catch {
      response.writeHead(404);
      return response.end();
    }
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  site.url = `http://127.0.0.1:${server.address().port}/`;
  site.close = () => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  };
  return site;
}
