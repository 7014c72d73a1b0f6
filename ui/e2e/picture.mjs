// A picture of a page that a running server shows: `node e2e/picture.mjs URL FILE [WIDTH HEIGHT]`.
import { openBrowser } from './browser.mjs';

const [url, file, width = '1360', height = '860'] = process.argv.slice(2);
if (url === undefined || file === undefined) {
  console.error('usage: node e2e/picture.mjs URL FILE [WIDTH HEIGHT]');
  process.exit(2);
}
const browser = await openBrowser();
try {
  const page = await browser.context.newPage();
  await page.setViewportSize({ width: Number(width), height: Number(height) });
  await page.goto(url);
  await page.locator('[data-testid=loading]').waitFor({ state: 'detached' });
  await page.getByText('Reading what was').waitFor({ state: 'detached' });
  if (new URL(url).searchParams.has('against')) await page.getByTestId('compared').waitFor();
  // The layout comes to rest.
  await page.waitForTimeout(1500);
  await page.screenshot({ path: file });
} finally {
  await browser.close();
}
