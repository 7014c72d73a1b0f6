// The real Chromium (Debian's package), with a user-data folder of its own that is removed afterwards. It may reach nothing
// but the machine itself: every other name resolves to an address that refuses.
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
];

const CHROMIUM = process.env.WEIR_CHROMIUM ?? '/usr/bin/chromium';

export async function openBrowser(options = {}) {
  if (!existsSync(CHROMIUM)) {
    throw new Error(`${CHROMIUM} is not there: install Debian's package chromium, or name another one in WEIR_CHROMIUM`);
  }
  const folder = await mkdtemp(join(tmpdir(), 'weir-page-'));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: CHROMIUM,
    args: FLAGS,
    locale: 'en-GB',
    timezoneId: 'UTC',
    viewport: { width: 1360, height: 860 },
    ...options,
  });
  return {
    context,
    close: async () => {
      await context.close();
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
