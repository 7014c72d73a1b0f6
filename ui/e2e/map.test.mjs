// The map in the real Chromium: what is in the picture is in its list for screen readers, under the pointer, in its panel and
// in the address; it stays put, goes back in time, compares, and says what is missing.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { assertAccessible, openPage, site, start, stop, until } from './pages.mjs';

// A running weir is looked at by page.test.mjs: what is made up here it has not.
const canned = process.env.WEIR_URL === undefined ? test : () => undefined;

before(start);
after(stop);

const LINK = 'deployment:shop/checkout>deployment:shop/payments';
const options = (page) => list(page).getByRole('option').allTextContents();
const list = (page) => page.getByRole('listbox');
/** What the keyboard is at. */
const current = (page) => page.evaluate(() => document.getElementById(document.querySelector('[role=listbox]').getAttribute('aria-activedescendant'))?.textContent ?? '');
const ready = (page) => page.getByTestId('map').waitFor();
/** How many pixels of the picture are near a colour. */
const pixels = (page, near) =>
  page.evaluate(({ r, g, b }) => {
    const canvas = document.querySelector('canvas.drawn');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) if (Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 24 && data[i + 3] > 200) count += 1;
    return count;
  }, near);

canned('the_map_is_the_first_thing_one_sees_and_everything_in_it_can_be_read', async (t) => {
  const served = await site(t, 'shop');
  const page = await openPage(t, served.url);
  await ready(page);
  assert.equal(served.asked[0].search, '?by=workload&since=5m&limit=5000&health=true');
  const names = await options(page);
  assert.equal(names.length, 19);
  assert.ok(names.some((name) => name === 'stateful set redis in data: calls 0, called by 1, 790 MB, can be opened'), names.join('\n'));
  assert.equal(await page.getByTestId('map').getAttribute('data-links'), '20');
  await until(async () => (await pixels(page, { r: 125, g: 151, b: 164 })) > 500, 'lines are drawn');
  await assertAccessible(page, 'the map');
  for (const scheme of ['dark', 'light']) {
    await page.emulateMedia({ colorScheme: scheme });
    await assertAccessible(page, `the map in ${scheme}`);
  }
});

canned('the_table_is_the_maps_twin_and_both_are_in_the_address', async (t) => {
  const { url } = await site(t, 'fault');
  const page = await openPage(t, url);
  await ready(page);
  await page.getByRole('radio', { name: 'Table' }).check({ force: true });
  const rows = page.locator('[data-testid=edges] tbody tr');
  await rows.first().waitFor();
  assert.equal(await rows.count(), 20);
  assert.match(await rows.filter({ hasText: '8443' }).innerText(), /! 30 % of connections refused \(41 of 137\), usually none/);
  assert.match(page.url(), /show=table/);
  await page.goBack();
  await ready(page);
  assert.doesNotMatch(page.url(), /show=/);
});

canned('a_fault_is_marked_named_and_explained', async (t) => {
  const { url } = await site(t, 'fault');
  const page = await openPage(t, url);
  await ready(page);
  const telling = page.getByTestId('telling').getByRole('listitem');
  assert.deepEqual((await telling.allInnerTexts()).sort(), [
    'checkout → payments, unhealthy: 30 % of connections refused (41 of 137), usually none',
    'payments → api.bank.example, unhealthy: 5.1 % of segments sent again, usually 0.02 %',
  ]);
  assert.ok((await options(page)).some((name) => /^deployment payments in shop, unhealthy:/.test(name)));
  await until(async () => (await pixels(page, { r: 165, g: 42, b: 32 })) > 100, 'red is drawn');
  await telling.filter({ hasText: 'checkout' }).getByRole('button').click();
  const panel = page.getByTestId('panel');
  assert.equal(await panel.getByTestId('verdict').innerText(), 'unhealthy since 14:05:20');
  assert.match(await panel.getByTestId('reasons').innerText(), /30 % of connections refused/);
  assert.match(await panel.innerText(), /13[^]*Failures\s*41/);
  for (const label of ['Bytes', 'Connections opened', 'Failures', 'Retransmits', 'Round-trip time']) {
    await panel.getByRole('img', { name: new RegExp(`^${label}, 13:07:10 to 14:06:10: at most`) }).waitFor();
  }
  const connections = panel.getByTestId('connections').locator('tbody tr');
  await connections.first().waitFor();
  assert.equal(await connections.count(), 6);
  assert.match(await connections.first().innerText(), /refused/);
  assert.equal(new URL(page.url()).searchParams.get('chosen'), LINK);
  await assertAccessible(page, 'a panel');
  const again = await openPage(t, page.url());
  assert.equal(await again.getByTestId('verdict').innerText(), 'unhealthy since 14:05:20', 'a link shows another person the same');
  await page.keyboard.press('Escape');
  await until(async () => (await panel.count()) === 0, 'Esc closes it');
});

canned('steps_in_which_something_is_missing_are_drawn_as_such', async (t) => {
  const { url } = await site(t, 'holes');
  const page = await openPage(t, `${url}?chosen=${encodeURIComponent(LINK)}`);
  await page.getByTestId('charts').waitFor();
  assert.equal(await page.getByTestId('charts').locator('figure').first().locator('rect.missing').count(), 4);
  assert.match(await page.getByTestId('charts').innerText(), /something is missing in 4 of these steps/);
  assert.equal(await page.getByTestId('strip').locator('rect.missing').count(), 4);
  assert.match(await page.getByTestId('trust').innerText(), /Incomplete\./);
  await assertAccessible(page, 'an incomplete map');
});

canned('the_keyboard_goes_from_one_to_another_opens_closes_and_leaves', async (t) => {
  const served = await site(t, 'shop');
  const page = await openPage(t, `${served.url}?by=namespace`);
  await ready(page);
  await list(page).focus();
  await page.keyboard.press('Home');
  const first = await current(page);
  await page.keyboard.press('End');
  assert.notEqual(await current(page), first);
  for (let i = 0; i < 12 && !/^namespace shop:/.test(await current(page)); i += 1) await page.keyboard.press(i % 2 === 0 ? 'ArrowLeft' : 'ArrowUp');
  await page.keyboard.press('Home');
  const keys = await options(page);
  const wanted = keys.findIndex((name) => name.startsWith('namespace shop'));
  assert.ok(wanted >= 0);
  // Arrows reach it from wherever they are.
  const reached = async () => /^namespace shop/.test(await current(page));
  for (const key of ['ArrowRight', 'ArrowDown', 'ArrowLeft', 'ArrowUp'].flatMap((key) => Array(5).fill(key)).concat(['ArrowRight', 'ArrowRight', 'ArrowDown', 'ArrowDown', 'ArrowLeft'])) {
    if (await reached()) break;
    await page.keyboard.press(key);
  }
  assert.ok(await reached(), `arrows lead to shop, they led to ${await current(page)}`);
  await page.keyboard.press('Enter');
  await until(() => served.asked.at(-1).searchParams.getAll('expand').join() === 'shop', 'the namespace is opened by the server');
  await until(async () => (await options(page)).some((name) => name.startsWith('deployment cart in shop')), 'its workloads are there');
  assert.equal(new URL(page.url()).searchParams.get('expand'), 'shop');
  await until(async () => (await page.locator('[role=status]').allInnerTexts()).includes('shop is open.'), 'and that is said');
  for (const key of Array(30).fill('ArrowRight')) {
    if (/in shop/.test(await current(page))) break;
    await page.keyboard.press(key);
  }
  await page.goto(`${served.url}?by=namespace&expand=shop&expand=shop%2Fcart`);
  await until(async () => (await options(page)).filter((name) => /^pod cart-/.test(name)).length === 2, 'a workload is open to its pods');
  await list(page).focus();
  for (let i = 0; i < 30 && !/^pod cart-/.test(await current(page)); i += 1) await page.keyboard.press(['ArrowRight', 'ArrowUp', 'ArrowLeft', 'ArrowDown'][i % 4]);
  await page.keyboard.press('?');
  await page.getByTestId('help').waitFor();
  await assertAccessible(page, 'the help');
  await page.keyboard.press('Escape');
  await until(async () => (await page.getByTestId('help').count()) === 0, 'the help closes');
});

canned('what_is_under_the_pointer_is_what_is_opened_and_shown', async (t) => {
  const served = await site(t, 'shop');
  const page = await openPage(t, `${served.url}?by=namespace&filter=namespace%3Dmonitoring`);
  await ready(page);
  const box = await page.locator('canvas.over').boundingBox();
  // Every place of a fine grid says what it is by its tooltip.
  const words = new Map();
  for (let y = 10; y < box.height - 50; y += 9) {
    for (let x = 10; x < box.width; x += 17) {
      await page.mouse.move(box.x + x, box.y + y);
      const tip = await page.locator('.tip').allInnerTexts();
      if (tip[0] !== undefined && !words.has(tip[0])) words.set(tip[0], [box.x + x, box.y + y]);
    }
    if (words.size >= 14) break;
  }
  const open = [...words].find(([tip]) => tip.startsWith('Open '));
  const node = [...words].find(([tip]) => /^namespace /.test(tip));
  assert.ok(open !== undefined && node !== undefined, [...words.keys()].join('\n'));
  await page.mouse.click(...node[1]);
  await page.getByTestId('panel').waitFor();
  assert.match(node[0], new RegExp(await page.getByTestId('panel').getByRole('heading', { level: 2 }).innerText()));
  await page.keyboard.press('Escape');
  await page.mouse.click(...open[1]);
  await until(() => served.asked.at(-1).searchParams.getAll('expand').length === 1, 'it is opened');
});

canned('the_picture_stays_where_it_is_while_numbers_and_others_change', async (t) => {
  const served = await site(t, 'shop');
  const page = await openPage(t, served.url);
  await ready(page);
  const places = () => page.evaluate(() => localStorage.getItem('weir-map-1-wide'));
  await until(places, 'places are remembered');
  const before = await places();
  const asked = served.asked.length;
  served.state = 'fault';
  await until(async () => served.asked.length > asked && (await page.getByTestId('telling').count()) === 1, 'a new answer is drawn');
  assert.equal(await places(), before);
  await page.reload();
  await ready(page);
  assert.equal(await places(), before, 'over a reload, too');
});

canned('the_strip_of_time_leads_back_and_one_press_to_now', async (t) => {
  const served = await site(t, 'shop');
  const page = await openPage(t, served.url);
  await ready(page);
  const slider = page.getByRole('slider', { name: 'The instant that is looked at' });
  await slider.waitFor();
  await slider.focus();
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('ArrowLeft');
  await until(() => served.asked.at(-1).searchParams.get('at') === '2025-11-23T14:05:10.000Z', 'an instant that is gone is asked');
  assert.match(await slider.getAttribute('aria-valuetext'), /5 minutes until 14:05:10/);
  assert.equal(await page.getByTestId('instant').innerText(), '14:05:10');
  await assertAccessible(page, 'an instant that is gone');
  const box = await slider.boundingBox();
  await page.mouse.click(box.x + box.width / 2, box.y + 20);
  await until(() => /T13:3\d:/.test(served.asked.at(-1).searchParams.get('at') ?? ''), 'a press looks there');
  await page.getByRole('button', { name: 'Back to now' }).click();
  await until(() => served.asked.at(-1).searchParams.get('at') === null, 'now again');
  assert.doesNotMatch(page.url(), /at=/);
});

canned('a_comparison_shows_each_kind_of_change_in_picture_and_table', async (t) => {
  const { url } = await site(t, 'shop');
  const page = await openPage(t, url);
  await ready(page);
  await page.getByRole('combobox', { name: 'Compare' }).selectOption('1h');
  await page.getByTestId('compared').waitFor();
  assert.match(await page.getByTestId('compared').innerText(), /5 changes: the 5 minutes until now against 1 hour before\./);
  const telling = (await page.getByTestId('telling').innerText()).replace(/\s+/g, ' ');
  for (const words of ['frontend → reviews, new', 'cart → memcached, gone', 'cart → redis, shifted', 'checkout → payments, sicker', 'mailer → kafka, better']) assert.ok(telling.includes(words), words);
  assert.ok((await options(page)).some((name) => name.startsWith('stateful set memcached in data')), 'what is gone is still in the picture');
  await assertAccessible(page, 'a comparison');
  await page.getByRole('radio', { name: 'Table' }).check({ force: true });
  const rows = page.getByTestId('changes').locator('tbody tr');
  await rows.first().waitFor();
  assert.deepEqual(await rows.locator('.what').allInnerTexts(), ['! sicker', '+ new', '− gone', '≠ shifted', '✓ better']);
  assert.match(page.url(), /show=table&against=1h/);
  await assertAccessible(page, 'a comparison’s table');
});

canned('a_server_that_cannot_compare_is_told_and_the_picture_stays', async (t) => {
  const { url } = await site(t, 'large');
  const page = await openPage(t, `${url}?against=1h`, { allow: /404/ });
  await page.getByTestId('no-comparison').waitFor();
  await ready(page);
});

canned('a_search_names_who_fits_and_says_how_many', async (t) => {
  const { url } = await site(t, 'shop');
  const page = await openPage(t, url);
  await ready(page);
  await page.keyboard.press('/');
  await page.keyboard.type('redis');
  await until(async () => /2 ends of 19 fit the search/.test(await page.getByTestId('hits').innerText()), 'redis and who goes through its Service');
  assert.equal(await page.locator('canvas.drawn.faint').count(), 1, 'the rest steps back');
});

canned('a_thousand_are_grouped_by_namespace_at_first_and_can_be_had_all', async (t) => {
  const served = await site(t, 'large');
  const page = await openPage(t, served.url);
  await ready(page);
  assert.equal(await page.getByTestId('map').getAttribute('data-nodes'), '40', 'what is too much is not drawn first');
  await page.getByTestId('coarse').waitFor();
  await page.getByRole('button', { name: 'Open all' }).click();
  await until(async () => Number(await page.getByTestId('map').getAttribute('data-nodes')) > 990, 'all of them');
  assert.equal(await page.getByTestId('map').getAttribute('data-links'), '3000');
});

canned('new_answers_come_by_themselves_and_polling_goes_on_when_that_breaks', async (t) => {
  const served = await site(t, 'shop');
  served.events = true;
  const page = await openPage(t, served.url, { allow: /ERR_/ });
  await ready(page);
  await until(() => served.streams.size === 1, 'the page has subscribed');
  assert.equal(served.asked.length, 1);
  served.state = 'fault';
  for (const stream of served.streams) stream.tell();
  await page.getByTestId('telling').waitFor();
  assert.equal(served.asked.length, 1, 'without a question');
  served.events = false;
  for (const stream of served.streams) stream.response.destroy();
  served.state = 'shop';
  await until(async () => (await page.getByTestId('telling').count()) === 0, 'it asks instead');
  assert.ok(served.asked.length > 1);
});

canned('a_narrow_window_has_all_of_it_without_a_sideways_scroll', async (t) => {
  const { url } = await site(t, 'fault');
  for (const query of ['', '?against=1h', `?chosen=${encodeURIComponent(LINK)}`, '?against=1h&show=table']) {
    const page = await openPage(t, url + query, { size: { width: 360, height: 740 } });
    await page.locator('[data-testid=map], [data-testid=changes]').first().waitFor();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 360, `${query}: ${wide} px`);
    await assertAccessible(page, `a narrow window ${query}`);
  }
});

canned('empty_loading_stale_and_failing_maps_say_so', async (t) => {
  const served = await site(t, 'empty');
  const page = await openPage(t, served.url, { allow: /ERR_|503/ });
  assert.match(await page.getByTestId('empty').innerText(), /No traffic in the last 5 minutes/);
  served.state = 'shop';
  await ready(page);
  served.state = 'down';
  await page.getByTestId('failing').waitFor();
  assert.equal(await page.locator('.map.stale').count(), 1, 'what is shown is old, and looks it');
  served.state = 'hang';
  const waiting = await openPage(t, served.url);
  await waiting.getByTestId('loading').waitFor();
});

canned('places_move_to_the_eye_only_where_that_is_wanted', async (t) => {
  const { url } = await site(t, 'shop');
  for (const still of [true, false]) {
    const page = await openPage(t, url, { still });
    await ready(page);
    await page.getByRole('button', { name: 'Close all' }).click();
    await until(async () => (await page.getByTestId('map').getAttribute('data-nodes')) !== '19', 'closed');
    assert.ok(Number(await page.getByTestId('map').getAttribute('data-nodes')) < 12);
  }
});
