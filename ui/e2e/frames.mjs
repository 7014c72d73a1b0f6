// Measures the map's frames (`npm run build && npm run bench:frames`): 1,000 nodes with 3,000 edges, all open, are dragged, zoomed and
// pointed at. Told are: what a frame costs the page's thread (script, style, layout, and recording what is painted), how far
// apart frames are, and how long it takes from the address to the first picture. Without a graphics card the browser's
// rasteriser needs the same processors; its time is in the distances and not in the cost.
import { openBrowser } from './browser.mjs';
import { serve } from './serve.mjs';

const FRAMES = 120;

const of = (values, part) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))];
const round = (value) => Math.round(value * 10) / 10;

/** Counts frames in the page until as many are there. */
function watch(frames) {
  const [cost, apart] = [[], []];
  let last = null;
  return new Promise((done) => {
    const step = (began) => {
      if (last !== null) apart.push(began - last);
      last = began;
      // Posted in the frame, answered after it: what lies between is the frame's work.
      const channel = new MessageChannel();
      const from = performance.now();
      channel.port1.onmessage = () => {
        cost.push(performance.now() - from);
        if (cost.length < frames) requestAnimationFrame(step);
        else done({ cost, apart });
      };
      channel.port2.postMessage(null);
    };
    requestAnimationFrame(step);
  });
}

async function measured(page, what, act) {
  const counted = page.evaluate(`(${watch})(${FRAMES})`);
  let isDone = false;
  void counted.then(() => (isDone = true));
  for (let i = 0; !isDone; i += 1) await act(i);
  const { cost, apart } = await counted;
  const row = { what, cost_p50_ms: round(of(cost, 0.5)), cost_p95_ms: round(of(cost, 0.95)), cost_max_ms: round(Math.max(...cost)), apart_p50_ms: round(of(apart, 0.5)), apart_p95_ms: round(of(apart, 0.95)) };
  console.log(JSON.stringify(row));
  return row;
}

const site = await serve('large');
const browser = await openBrowser({ viewport: { width: 1440, height: 900 } });
try {
  const page = await browser.context.newPage();
  const all = Array.from({ length: 40 }, (_, i) => `expand=team-${String(i).padStart(2, '0')}`).join('&');
  await page.goto(`${site.url}?by=namespace&${all}`);
  const map = page.getByTestId('map');
  await map.waitFor();
  await page.getByRole('button', { name: 'Pause' }).click();
  console.log(JSON.stringify({ nodes: Number(await map.getAttribute('data-nodes')), links: Number(await map.getAttribute('data-links')) }));
  const box = await map.boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];

  await page.mouse.move(x, y);
  await page.mouse.down();
  await measured(page, 'drag, all in sight', (i) => page.mouse.move(x + 120 * Math.sin(i / 9), y + 60 * Math.cos(i / 7)));
  await page.mouse.up();
  await page.keyboard.down('Shift');
  await measured(page, 'zoom', (i) => page.mouse.wheel(0, i % 40 < 20 ? -60 : 60));
  await page.keyboard.up('Shift');
  await measured(page, 'point at nodes', (i) => page.mouse.move(x + 300 * Math.sin(i / 5), y + 150 * Math.cos(i / 3)));

  for (const state of ['shop', 'large']) {
    site.state = state;
    const first = [];
    for (let i = 0; i < 5; i += 1) {
      const fresh = await browser.context.newPage();
      await fresh.goto(site.url);
      await fresh.locator('[data-testid=map]').waitFor();
      first.push(await fresh.evaluate(() => new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(() => painted(performance.now()))))));
      await fresh.close();
    }
    console.log(JSON.stringify({ what: `first picture, ${state}`, p50_ms: round(of(first, 0.5)), max_ms: round(Math.max(...first)) }));
  }
} finally {
  await browser.close();
  await site.close();
}
