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

test('sees how much a host used', async () => {
  const { items } = await get<List<{ name: string }>>('/hosts?limit=10');
  await page.goto(`/t/${tenant}/hosts/${items[0]?.name}/usage`);
  const chart = page.getByRole('img', { name: /^CPU: now \d/ });
  await expect(async () => {
    await page.reload();
    await expect(chart).toBeVisible({ timeout: 5_000 });
  }).toPass({ timeout: 60_000 });
  await expect(page.getByRole('img', { name: /^Received: now \d/ })).toBeVisible();
  await picture('usage');
});

interface Vm {
  power?: string;
  owned?: boolean;
}
/** The page of a VM that is on, of a host that is online. */
async function machine(wanted: (vm: Vm) => boolean): Promise<{ path: string; name: string }> {
  const { items } = await get<List<{ name: string; connection: string }>>('/hosts?limit=10');
  for (const { name } of items.filter((one) => one.connection === 'online')) {
    const { status } = await get<{ status: Record<string, Vm> }>(`/hosts/${name}`);
    const found = Object.entries(status ?? {}).find(([key, vm]) => key.startsWith('vm/') && /on|running/i.test(vm.power ?? '') && wanted(vm));
    if (found) return { path: `/t/${tenant}/hosts/${name}/vms/${found[0].slice('vm/'.length)}`, name: found[0].split('/').at(-1) ?? '' };
  }
  return { path: '', name: '' };
}

test('reads the console of a VM', async () => {
  const { path } = await machine(() => true);
  expect(path, 'a VM is on').not.toBe('');
  await page.goto(path);
  await page.getByRole('link', { name: 'Console', exact: true }).click();
  await expect(page.getByText('Connected', { exact: true })).toBeVisible();
  // A guest that waits at its prompt says it again when Enter is pressed.
  await page.keyboard.press('Enter');
  await expect(page.locator('.xterm-rows')).toContainText(/\S{3,}/, { timeout: 30_000 });
  await picture('console');
});

/** What is on the screen: its size in the guest's pixels, and how many of them are lit. */
function screen(): Promise<{ width: number; height: number; lit: number }> {
  return page.getByRole('img', { name: /^Screen of / }).evaluate((element) => {
    const canvas = element as HTMLCanvasElement;
    const { width, height } = canvas;
    const { data } = canvas.getContext('2d')?.getImageData(0, 0, width, height) ?? { data: new Uint8ClampedArray() };
    let lit = 0;
    for (let at = 0; at < data.length; at += 4) if ((data[at] ?? 0) + (data[at + 1] ?? 0) + (data[at + 2] ?? 0) > 96) lit += 1;
    return { width, height, lit };
  });
}

test('sees the screen of a VM, and types into it', async () => {
  const { path } = await machine((vm) => vm.owned === true);
  expect(path, 'a VM of the repository is on').not.toBe('');
  await page.goto(path);
  await page.getByRole('link', { name: 'Screen', exact: true }).click();
  await expect(page.getByText('Connected', { exact: true })).toBeVisible();
  // A PC's text mode: 80 by 25 letters of 9 by 16 pixels. The prompt alone is some hundred lit ones.
  await expect.poll(screen, { timeout: 30_000 }).toMatchObject({ width: 720, height: 400 });
  await expect.poll(async () => (await screen()).lit, { timeout: 30_000 }).toBeGreaterThan(100);
  await picture('screen');
  await page.getByRole('button', { name: 'Type into it' }).click();
  // A screen full of text, then an empty one: no blinking cursor looks like that. (What needs Shift, type() does not press it.)
  await page.keyboard.type('busybox\n', { delay: 40 });
  await expect.poll(async () => (await screen()).lit, { timeout: 30_000 }).toBeGreaterThan(8_000);
  await picture('typed');
  await page.keyboard.type('clear\n', { delay: 40 });
  await expect.poll(async () => (await screen()).lit, { timeout: 30_000 }).toBeLessThan(2_000);
});

/** Chooses from the VM's power menu; what kills the guest asks for the VM's name. */
async function power(choice: string, name?: string): Promise<void> {
  await page.getByRole('button', { name: 'Power', exact: true }).click();
  await page.getByRole('menuitem', { name: choice }).click();
  if (!name) return;
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('textbox').fill(name);
  await dialog.getByRole('button', { name: choice.replace('…', '') }).click();
}

test("is told why a VM of the repository can't be switched off here", async () => {
  const { path, name } = await machine((vm) => vm.owned === true);
  await page.goto(path);
  await expect(page.getByRole('heading', { level: 1, name })).toBeVisible();
  // The command as `selvedge` takes it.
  await expect(page.getByText(/^selvedge vm console --site \w+ shop\/web$/)).toBeVisible();
  await expect(page.getByText('its repository: switched there')).toBeVisible();
  await power('Power off…', name);
  const why = page.getByRole('dialog').getByRole('alert');
  await expect(why).toContainText('(409)');
  // Whose it is, and where it is changed.
  await expect(why).toContainText(/\.ya?ml/);
  await expect(why).toContainText(/shops/);
  await picture('refused');
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
});

test('switches a VM of nobody’s repository off and on', async () => {
  const { path, name } = await machine((vm) => vm.owned === false);
  expect(path, 'a VM that no repository knows is on').not.toBe('');
  await page.goto(path);
  await expect(page.getByRole('heading', { level: 1, name })).toBeVisible();
  const state = page.getByRole('term').filter({ hasText: 'Power' }).locator('xpath=following-sibling::dd[1]');
  await expect(state).toHaveText('On');
  await power('Power off…', name);
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await expect(state).toHaveText('Off', { timeout: 60_000 });
  await picture('off');
  await power('Power on');
  await expect(state).toHaveText('On', { timeout: 60_000 });
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
