// Takes a picture of every state into the folder given (`npm run screenshots -- /tmp/page`), to be looked at.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { openBrowser } from './browser.mjs';
import { serve } from './serve.mjs';

const folder = process.argv[2];
if (folder === undefined) {
  console.error('usage: npm run screenshots -- FOLDER');
  process.exit(2);
}
await mkdir(folder, { recursive: true });

const WIDE = { width: 1360, height: 860 };
const NARROW = { width: 390, height: 844 };
const SHOTS = [
  ['page', { state: 'full', size: { width: 1240, height: 790 } }],
  ['full', { state: 'full' }],
  ['full-dark', { state: 'full', dark: true }],
  ['search', { state: 'full', query: '?q=data&sort=rtt' }],
  ['attribute', { state: 'full', query: '?by=attribute:team' }],
  ['exact', { state: 'full', query: '?bytes=exact' }],
  ['middle', { state: 'full', size: { width: 1100, height: 700 } }],
  ['tablet', { state: 'full', query: '?q=data', size: { width: 800, height: 900 } }],
  ['narrow', { state: 'full', size: NARROW }],
  ['narrow-dark', { state: 'incomplete', size: NARROW, dark: true }],
  ['incomplete', { state: 'incomplete', open: true }],
  ['incomplete-dark', { state: 'incomplete', open: true, dark: true }],
  ['no-match', { state: 'full', query: '?q=nowhere' }],
  ['empty', { state: 'empty' }],
  ['nobody', { state: 'nobody' }],
  ['error', { state: 'error' }],
  ['token', { state: 'token', dark: true }],
  ['rubbish', { state: 'rubbish' }],
  ['down', { state: 'down' }],
  ['loading', { state: 'hang' }],
  ['stale', { state: 'full', then: 'down' }],
  ['many', { state: 'many' }],
];

const site = await serve();
const browser = await openBrowser();
try {
  for (const [name, { state, query = '', size = WIDE, dark = false, open = false, then }] of SHOTS) {
    const page = await browser.context.newPage();
    site.state = state;
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
    await page.setViewportSize(size);
    await page.goto(site.url + query);
    await page.locator('[data-testid=edges], [data-testid=empty], [data-testid=failing], [data-testid=loading]').first().waitFor();
    if (state !== 'hang') await page.locator('[data-testid=loading]').waitFor({ state: 'detached' });
    if (open) await page.locator('summary').click();
    if (then !== undefined) {
      site.state = then;
      await page.getByTestId('failing').waitFor();
    }
    await page.screenshot({ path: join(folder, `${name}.png`) });
    await page.close();
  }
} finally {
  await browser.close();
  await site.close();
}
