import { defineConfig } from '@playwright/test';

const port = 8480;
// Debian's Chromium; without these it looks up its maker's hosts at every start.
const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export default defineConfig({
  testDir: 'tests',
  timeout: 30_000,
  workers: 2,
  fullyParallel: true,
  // Where a lab runs too, network interfaces come and go, and Chromium drops its connections at that.
  retries: 2,
  reporter: [['list']],
  use: {
    launchOptions: { executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args },
    screenshot: 'off',
    trace: 'off',
  },
  projects: [
    // The page's own parts, over an invented API.
    { name: 'page', testMatch: /tests\/page\/.*\.spec\.ts/, use: { baseURL: `http://127.0.0.1:${port}` } },
    // A person's way through a real orchestrator with the lab's three sites: BASE_URL, SELVEDGE_USER, SELVEDGE_PASSWORD.
    {
      name: 'e2e',
      testMatch: /tests\/e2e\/lab\.spec\.ts/,
      timeout: 120_000,
      use: { baseURL: process.env.BASE_URL ?? 'https://127.0.0.1:8443', ignoreHTTPSErrors: true },
    },
    // The pictures of the documentation: as e2e, and PICTURES.
    {
      name: 'pictures',
      testMatch: /tests\/e2e\/pictures\.spec\.ts/,
      use: { baseURL: process.env.BASE_URL ?? 'https://127.0.0.1:8443', ignoreHTTPSErrors: true },
    },
    // People who come in through an OpenID Connect provider: BASE_URL, PROVIDER, SELVEDGE_USER, SELVEDGE_PASSWORD.
    {
      name: 'sign-in',
      testMatch: /tests\/sign-in\/.*\.spec\.ts/,
      use: { baseURL: process.env.BASE_URL ?? 'https://127.0.0.1:8443', ignoreHTTPSErrors: true },
    },
  ],
  ...(process.argv.some((word) => /^--project=(e2e|pictures|sign-in)$/.test(word))
    ? {}
    : { webServer: { command: `node mock/server.mjs ${port}`, url: `http://127.0.0.1:${port}/api/v1/version`, reuseExistingServer: !process.env.CI } }),
});
