/**
 * A person's way through a real orchestrator with the lab's three sites behind it:
 *
 *     BASE_URL=https://127.0.0.1:8443 SELVEDGE_USER=ada SELVEDGE_PASSWORD=… npm run e2e
 *
 * SELVEDGE_TENANT, if the user has more than one. SHOTS=folder keeps pictures of what is passed.
 */
import AxeBuilder from '@axe-core/playwright';
import { expect, type Page, test } from '@playwright/test';

const user = process.env.SELVEDGE_USER ?? process.env.USER ?? '';
const password = process.env.SELVEDGE_PASSWORD ?? process.env.PASSWORD ?? '';
const shots = process.env.SHOTS;

test.describe.configure({ mode: 'serial' });
test.skip(!process.env.BASE_URL, 'BASE_URL names no orchestrator');

let page: Page;
let tenant = process.env.SELVEDGE_TENANT ?? '';
const trouble: string[] = [];

async function picture(name: string): Promise<void> {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png` });
}

interface List<T> {
  items: T[];
  total: number;
}
async function get<T>(path: string): Promise<T> {
  const answer = await page.request.get(`/api/v1/tenants/${tenant}${path}`);
  expect(answer.ok(), `${path}: ${answer.status()}`).toBe(true);
  return (await answer.json()) as T;
}

test.beforeAll(async ({ browser }) => {
  // axe wants a context that is not the page's own.
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
  page = await context.newPage();
  page.on('pageerror', (error) => trouble.push(error.message));
  page.on('console', (message) => {
    if (/Content Security Policy/.test(message.text()) && !/inline style/.test(message.text())) trouble.push(message.text());
  });
});
test.afterAll(async () => {
  await page.context().close();
  expect(trouble).toEqual([]);
});

test('signs in', async () => {
  await page.goto('/');
  await page.getByLabel('Username').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByRole('heading', { name: 'Overview' })).toBeVisible();
  if (tenant) await page.goto(`/t/${tenant}`);
  tenant = new URL(page.url()).pathname.split('/')[2] ?? '';
  await expect(page.getByText('Live', { exact: true })).toBeVisible();
  await expect(page.getByText('Needs you now').or(page.getByText('has no sites'))).toBeVisible();
  await picture('overview');
});

test('sees three sites, in the table and on the map', async () => {
  await page.getByRole('link', { name: 'Sites', exact: true }).first().click();
  const table = page.getByRole('table', { name: 'Sites' });
  await expect(table).toHaveAttribute('aria-rowcount', '4', { timeout: 60_000 });
  const { items } = await get<List<{ name: string }>>('/sites?limit=10');
  for (const site of items) await expect(page.getByRole('row', { name: new RegExp(site.name) })).toBeVisible();
  await picture('sites');
  await page.getByRole('button', { name: 'Map', exact: true }).click();
  await expect(page.getByRole('img', { name: /Map of \d+ sites?/ })).toBeVisible();
  await picture('map');
});

test('opens a site and its host', async () => {
  // The state that counts is the page's own, brought by its stream.
  const { items } = await get<List<{ name: string; site: string }>>('/hosts?limit=10');
  const host = items[0];
  expect(host, 'a host is enrolled').toBeDefined();
  await page.goto(`/t/${tenant}/sites/${host?.site}`);
  await expect(page.getByText('Wanted and true')).toBeVisible();
  await picture('site');
  await page.getByRole('link', { name: host?.name ?? '', exact: true }).first().click();
  await expect(page.getByRole('heading', { level: 1, name: host?.name ?? '' })).toBeVisible();
  await expect(page.getByText('Online').first()).toBeVisible({ timeout: 60_000 });
  await expect(page.getByRole('group', { name: /^vSwitch / }).first()).toBeVisible({ timeout: 60_000 });
  await picture('host');
  for (const tab of ['Hardware', 'Events']) {
    await page.getByRole('navigation', { name: 'Parts of the host' }).getByRole('link', { name: tab }).click();
    await expect(page.getByRole('main').getByRole('alert')).toHaveCount(0);
  }
});

test('reads the console of a VM', async () => {
  const { items } = await get<List<{ name: string }>>('/hosts?limit=10');
  let path = '';
  for (const { name } of items) {
    const { status } = await get<{ status: Record<string, { power?: string }> }>(`/hosts/${name}`);
    const vm = Object.entries(status ?? {}).find(([key, value]) => key.startsWith('vm/') && /on|running/i.test(value.power ?? ''));
    if (vm) {
      path = `/t/${tenant}/hosts/${name}/vms/${vm[0].slice('vm/'.length)}`;
      break;
    }
  }
  expect(path, 'a VM is on').not.toBe('');
  await page.goto(path);
  await page.getByRole('link', { name: 'Console', exact: true }).click();
  await expect(page.getByText('Connected', { exact: true })).toBeVisible();
  // A guest that waits at its prompt says it again when Enter is pressed.
  await page.keyboard.press('Enter');
  await expect(page.locator('.xterm-rows')).toContainText(/\S{3,}/, { timeout: 30_000 });
  await picture('console');
});

test('sees the rollouts', async () => {
  await page.goto(`/t/${tenant}/rollouts`);
  await expect(page.getByRole('heading', { name: 'Under way' })).toBeVisible();
  const { items } = await get<List<{ id: string; repository: string; number: number }>>('/rollouts?limit=1');
  const rollout = items[0];
  if (rollout) {
    await page.goto(`/t/${tenant}/rollouts/${rollout.id}`);
    await expect(page.getByRole('heading', { name: `${rollout.repository} #${rollout.number}` })).toBeVisible();
    await expect(page.getByText('Waves', { exact: true })).toBeVisible();
  }
  await picture('rollout');
});

test('every view answers, and none hinders anybody', async () => {
  for (const view of ['', '/sites', '/hosts', '/alerts', '/alerts/channels', '/repositories', '/plans', '/rollouts', '/policies', '/enrollment', '/enrollment/expected', '/enrollment/keys', '/audit', '/people', '/people/tokens']) {
    await page.goto(`/t/${tenant}${view}`);
    await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
    await expect(page.getByRole('status').filter({ hasText: 'Loading' })).toHaveCount(0);
    await expect(page.getByRole('main').getByRole('alert'), `trouble at ${view || '/'}`).toHaveCount(0);
    const found = await new AxeBuilder({ page }).analyze();
    expect(found.violations.map((one) => `${view}: ${one.id}`)).toEqual([]);
  }
});
