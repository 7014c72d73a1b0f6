// Takes a picture of every state into the folder given (`npm run screenshots -- /tmp/page`), to be looked at.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { openBrowser } from './browser.mjs';
import { serve } from './serve.mjs';

const folder = process.argv[2];
if (folder === undefined) {
  console.error('usage: npm run screenshots -- FOLDER [NAME...]');
  process.exit(2);
}
await mkdir(folder, { recursive: true });

const WIDE = { width: 1360, height: 860 };
const NARROW = { width: 390, height: 844 };
const PICTURE = { width: 1360, height: 1000 };
/** Only the shots whose names are given, or all. */
const WANTED = process.argv.slice(3);
const LINK = `chosen=${encodeURIComponent('deployment:shop/checkout>deployment:shop/payments')}`;
const ALL = Array.from({ length: 40 }, (_, i) => `expand=team-${String(i).padStart(2, '0')}`).join('&');
const SHOTS = [
  // The map.
  ['map', { state: 'shop', size: PICTURE }],
  ['map-fault', { state: 'fault', query: `?${LINK}`, size: PICTURE }],
  ['map-diff', { state: 'shop', query: '?against=1h', size: PICTURE }],
  ['map-large', { state: 'large', query: `?by=namespace&${ALL}`, size: PICTURE }],
  ['map-large-closed', { state: 'large' }],
  ['map-narrow', { state: 'fault', size: { width: 360, height: 1700 } }],
  ['map-narrow-panel', { state: 'fault', query: `?${LINK}`, size: { width: 360, height: 2600 } }],
  ['map-dark', { state: 'fault', query: `?${LINK}`, dark: true, size: PICTURE }],
  ['map-closed', { state: 'shop', query: '?by=namespace&expand=shop' }],
  ['map-pods', { state: 'shop', query: '?by=namespace&expand=shop&expand=shop/cart&expand=data&expand=data/redis' }],
  ['map-search', { state: 'shop', query: '?q=redis' }],
  ['map-past', { state: 'shop', query: '?at=2025-11-23T13:41:00Z' }],
  ['map-incomplete', { state: 'holes', query: `?${LINK}` }],
  ['map-diff-dark', { state: 'shop', query: '?against=1h', dark: true }],
  ['diff-table', { state: 'shop', query: '?against=1h&show=table' }],
  ['map-stale', { state: 'shop', then: 'down' }],
  ['map-help', { state: 'shop', key: '?' }],
  // The table, and what there is instead of either.
  ['full', { state: 'full', query: '?show=table' }],
  ['full-dark', { state: 'full', query: '?show=table', dark: true }],
  ['search', { state: 'full', query: '?show=table&q=data&sort=rtt' }],
  ['attribute', { state: 'full', query: '?show=table&by=attribute:team' }],
  ['exact', { state: 'full', query: '?show=table&bytes=exact' }],
  ['middle', { state: 'full', query: '?show=table', size: { width: 1100, height: 700 } }],
  ['tablet', { state: 'full', query: '?show=table&q=data', size: { width: 800, height: 900 } }],
  ['narrow', { state: 'full', query: '?show=table', size: NARROW }],
  ['narrow-dark', { state: 'incomplete', query: '?show=table', size: NARROW, dark: true }],
  ['incomplete', { state: 'incomplete', query: '?show=table', open: true }],
  ['incomplete-dark', { state: 'incomplete', query: '?show=table', open: true, dark: true }],
  ['no-match', { state: 'full', query: '?show=table&q=nowhere' }],
  ['empty', { state: 'empty' }],
  ['nobody', { state: 'nobody' }],
  ['error', { state: 'error' }],
  ['token', { state: 'token', dark: true }],
  ['rubbish', { state: 'rubbish' }],
  ['down', { state: 'down' }],
  ['loading', { state: 'hang' }],
  ['stale', { state: 'full', query: '?show=table', then: 'down' }],
  ['many', { state: 'many', query: '?show=table' }],
];

const site = await serve();
const browser = await openBrowser();
try {
  for (const [name, { state, query = '', size = WIDE, dark = false, open = false, then, key }] of SHOTS) {
    if (WANTED.length > 0 && !WANTED.includes(name)) continue;
    const page = await browser.context.newPage();
    site.state = state;
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light', reducedMotion: 'reduce' });
    await page.setViewportSize(size);
    await page.goto(site.url + query);
    await page.locator('[data-testid=map], [data-testid=changes], [data-testid=edges], [data-testid=empty], [data-testid=failing], [data-testid=loading]').first().waitFor();
    if (state !== 'hang') await page.locator('[data-testid=loading]').waitFor({ state: 'detached' });
    if (open) await page.locator('summary').click();
    if (then !== undefined) {
      site.state = then;
      await page.getByTestId('failing').waitFor();
    }
    if (key !== undefined) {
      await page.getByRole('listbox').focus();
      await page.keyboard.press(key);
    }
    // The strip and the panel have answers of their own.
    await page.waitForLoadState('networkidle').catch(() => undefined);
    await page.waitForTimeout(400);
    await page.screenshot({ path: join(folder, `${name}.png`) });
    await page.close();
  }
} finally {
  await browser.close();
  await site.close();
}
