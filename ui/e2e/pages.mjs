// What the tests of the page share: a page that remembers what it complained about, waiting, axe, and a site of canned answers.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { openBrowser } from './browser.mjs';
import { serve } from './serve.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser;
/** Opens the browser that the pages of this file's tests share. */
export async function start() {
  browser = await openBrowser();
}
export async function stop() {
  await browser.close();
}

/** Undoes in the reverse order of doing (Node's own `after` goes forwards): a page is left before its server goes. */
const undoing = new WeakMap();
export function undo(t, step) {
  if (!undoing.has(t)) {
    undoing.set(t, []);
    t.after(async () => {
      for (const last of undoing.get(t).reverse()) await last();
    });
  }
  undoing.get(t).push(step);
}

/** A page that remembers what it complained about and whom it asked. `allow` fits the complaints that a test provokes. */
export async function openPage(t, url, { allow = null, scheme = 'light', size = { width: 1360, height: 860 }, still = true } = {}) {
  const page = await browser.context.newPage();
  const origin = new URL(url).origin;
  const complaints = [];
  const strangers = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !(allow?.test(message.text()) ?? false)) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('dialog', (dialog) => {
    complaints.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith('data:')) strangers.push(request.url());
  });
  await page.emulateMedia({ colorScheme: scheme, reducedMotion: still ? 'reduce' : 'no-preference' });
  await page.setViewportSize(size);
  undo(t, async () => {
    await page.close();
    assert.deepEqual(complaints, [], 'the console has no errors');
    assert.deepEqual(strangers, [], 'nothing is asked of another host');
  });
  await page.goto(url);
  return page;
}

/** Waits until a condition holds; the last try's error is the test's. */
export async function until(check, what, ms = 10_000) {
  const deadline = performance.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > deadline) assert.fail(`${what}: not within ${ms} ms`);
    await new Promise((again) => setTimeout(again, 50));
  }
}

export async function assertAccessible(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }),
  );
  const serious = violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} (${node.any.map((one) => one.message).join('; ')})`).slice(0, 4).join(', ')}`);
  assert.deepEqual(serious, [], `axe finds nothing serious in ${where}`);
}

/** A site of canned answers for one test. */
export async function site(t, state) {
  const served = await serve(state);
  undo(t, () => served.close());
  return served;
}
