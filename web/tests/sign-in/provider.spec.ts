/**
 * People who come in through a real OpenID Connect provider (provider.mjs), in a browser, at a real orchestrator:
 * BASE_URL, PROVIDER, and SELVEDGE_USER with SELVEDGE_PASSWORD for the owner's look at the accounts.
 */
import { type APIRequestContext, type Browser, expect, type Page, test } from '@playwright/test';

const provider = process.env.PROVIDER ?? '';
test.describe.configure({ mode: 'serial' });
test.skip(!provider, 'PROVIDER names none');

interface Me {
  user: { id: string; username: string; displayName: string; kind: string; bindings: { role: string }[] };
}

/** A browser of somebody who was never here. */
async function somebody(browser: Browser): Promise<Page> {
  const context = await browser.newContext();
  return context.newPage();
}
async function begin(page: Page): Promise<void> {
  await page.goto('/login?back=%2Ft%2Facme%2Fsites');
  await page.getByRole('link', { name: /^Sign in with 127\.0\.0\.1/ }).click();
  await expect(page).toHaveURL(new RegExp(`^${provider}/interaction/`));
}
/** Says at the provider who one is, and agrees. */
async function agree(page: Page, login: string): Promise<void> {
  await page.getByPlaceholder('Enter any login').fill(login);
  await page.getByPlaceholder('and password').fill('any');
  await page.getByRole('button', { name: 'Sign-in' }).click();
  await page.getByRole('button', { name: 'Continue' }).click();
}
/** The way back to the orchestrator, which the browser does not go. */
async function intercepted(page: Page, login: string): Promise<string> {
  await begin(page);
  await page.getByPlaceholder('Enter any login').fill(login);
  await page.getByPlaceholder('and password').fill('any');
  await page.getByRole('button', { name: 'Sign-in' }).click();
  await expect(page.getByRole('button', { name: 'Continue' })).toBeVisible();
  const action = (await page.locator('form').getAttribute('action')) ?? '';
  const agreed = await page.request.post(action, { form: { prompt: 'consent' }, maxRedirects: 0 });
  const ended = await page.request.get(agreed.headers()['location'] ?? '', { maxRedirects: 0 });
  const back = ended.headers()['location'] ?? '';
  expect(back).toContain('/api/v1/oidc/callback?');
  return back;
}
async function me(page: Page): Promise<Me['user']> {
  const answer = await page.request.get('/api/v1/me');
  expect(answer.status()).toBe(200);
  return ((await answer.json()) as Me).user;
}
async function nobody(page: Page): Promise<void> {
  const cookies = await page.context().cookies();
  expect(cookies.map((one) => one.name)).not.toContain('selvedge_session');
  expect((await page.request.get('/api/v1/me')).status()).toBe(401);
}
async function accounts(request: APIRequestContext): Promise<string[]> {
  const signed = await request.post('/api/v1/session', { data: { username: process.env.SELVEDGE_USER, password: process.env.SELVEDGE_PASSWORD } });
  expect(signed.ok()).toBe(true);
  const list = (await (await request.get('/api/v1/tenants/acme/users')).json()) as { items: { username: string; kind: string }[] };
  return list.items.map((one) => `${one.username} ${one.kind}`).sort();
}
const groups = (name: string, groups: string[]): Promise<Response> =>
  fetch(`${provider}/test/people/${name}`, { method: 'PUT', body: JSON.stringify({ groups }) });

let first = '';

test('the first sign-in makes the account, with the role of its group', async ({ browser }) => {
  const page = await somebody(browser);
  await begin(page);
  await agree(page, 'grace');
  await expect(page).toHaveURL(/\/t\/acme\/sites$/);
  await expect(page.getByRole('heading', { level: 1, name: 'Sites' })).toBeVisible();
  await expect(page.getByRole('button', { name: /^Account of grace/ })).toContainText('Grace Hopper');
  const user = await me(page);
  expect(user).toMatchObject({ username: 'grace', kind: 'oidc', bindings: [{ role: 'operator' }] });
  first = user.id;
  // What was asked of the provider: a code, bound to this sign-in three times.
  const asked = (await (await fetch(`${provider}/test/asked`)).json()) as Record<string, string>[];
  const last = asked.at(-1) ?? {};
  expect(last).toMatchObject({ response_type: 'code', code_challenge_method: 'S256', client_id: 'selvedge' });
  for (const random of ['state', 'nonce', 'code_challenge']) expect(last[random]?.length, random).toBeGreaterThanOrEqual(43);
  await page.reload();
  await expect(page.getByRole('heading', { level: 1, name: 'Sites' })).toBeVisible();
  await page.context().close();
});

test('the second finds it; the role follows the group', async ({ browser }) => {
  await groups('grace', ['everybody']);
  const page = await somebody(browser);
  await begin(page);
  await agree(page, 'grace');
  await expect(page.getByRole('heading', { level: 1, name: 'Sites' })).toBeVisible();
  const user = await me(page);
  expect(user.id).toBe(first);
  expect(user.bindings.map((one) => one.role)).toEqual(['viewer']);
  await page.context().close();
});

test('who has no group with a role is told so, and gets no account', async ({ browser, request }) => {
  const page = await somebody(browser);
  await begin(page);
  await agree(page, 'alan');
  await expect(page).toHaveURL(/\/login\?oidc=role$/);
  await expect(page.getByRole('alert')).toContainText('no group of yours has a role here');
  if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/no-role.png` });
  await nobody(page);
  expect(await accounts(request)).toEqual(['ada local', 'grace oidc']);
  await page.context().close();
});

test('who lost the group lost the role', async ({ browser }) => {
  await groups('grace', ['tea']);
  const page = await somebody(browser);
  await begin(page);
  await agree(page, 'grace');
  await expect(page.getByRole('alert')).toContainText('no group of yours has a role here');
  await nobody(page);
  await groups('grace', ['ops']);
  await page.context().close();
});

test('a name that is taken by a local account stays its own', async ({ browser, request }) => {
  const page = await somebody(browser);
  await begin(page);
  await agree(page, 'ada');
  await expect(page.getByRole('alert')).toContainText('belongs to another account');
  await nobody(page);
  expect(await accounts(request)).toEqual(['ada local', 'grace oidc']);
  await page.context().close();
});

test('an account that was disabled stays so', async ({ browser, request }) => {
  await accounts(request);
  const csrf = ((await (await request.get('/api/v1/me')).json()) as { csrf: string }).csrf;
  const disable = (disabled: boolean) => request.patch('/api/v1/tenants/acme/users/grace', { headers: { 'x-csrf-token': csrf }, data: { disabled } });
  expect((await disable(true)).ok()).toBe(true);
  const page = await somebody(browser);
  await begin(page);
  await agree(page, 'grace');
  await expect(page.getByRole('alert')).toContainText('is disabled');
  await nobody(page);
  expect((await disable(false)).ok()).toBe(true);
  await page.context().close();
});

test('who turns back at the provider is at the door again', async ({ browser }) => {
  const page = await somebody(browser);
  await begin(page);
  await page.getByRole('link', { name: 'Cancel' }).click();
  await expect(page).toHaveURL(/\/login\?oidc=declined$/);
  await expect(page.getByRole('alert')).toContainText('did not sign you in');
  await nobody(page);
  await page.context().close();
});

test('an answer counts only in the browser that asked: state', async ({ browser }) => {
  const [victim, attacker] = [await somebody(browser), await somebody(browser)];
  const back = await intercepted(attacker, 'grace');
  // Without a sign-in of its own under way, and with one of another state.
  await victim.goto(back);
  await expect(victim.getByRole('alert')).toContainText('did not fit this sign-in');
  await begin(victim);
  await victim.goto(back);
  await expect(victim.getByRole('alert')).toContainText('did not fit this sign-in');
  await nobody(victim);
  await victim.context().close();
  await attacker.context().close();
});

test('a code counts only with the secret of its sign-in: PKCE', async ({ browser }) => {
  const [victim, attacker] = [await somebody(browser), await somebody(browser)];
  const theirs = new URL(await intercepted(attacker, 'grace'));
  const own = new URL(await intercepted(victim, 'grace'));
  own.searchParams.set('code', theirs.searchParams.get('code') ?? '');
  await victim.goto(own.href);
  await expect(victim.getByRole('alert')).toContainText('did not fit this sign-in');
  await nobody(victim);
  await victim.context().close();
  await attacker.context().close();
});

test('a token counts only for the sign-in it was made for: nonce', async ({ browser }) => {
  const page = await somebody(browser);
  await fetch(`${provider}/test/nonce`, { method: 'PUT', body: '{"spoil":true}' });
  await begin(page);
  await agree(page, 'grace');
  await expect(page.getByRole('alert')).toContainText('did not fit this sign-in');
  await nobody(page);
  await fetch(`${provider}/test/nonce`, { method: 'PUT', body: '{"spoil":false}' });
  await page.context().close();
});

test('an answer counts once', async ({ browser }) => {
  const page = await somebody(browser);
  const back = await intercepted(page, 'grace');
  const cookies = await page.context().cookies();
  await page.goto(back);
  await expect(page.getByRole('heading', { level: 1, name: 'Sites' })).toBeVisible();
  expect((await me(page)).id).toBe(first);
  const again = await somebody(browser);
  await again.context().addCookies(cookies.filter((one) => one.name === 'selvedge_oidc'));
  await again.goto(back);
  await expect(again.getByRole('alert')).toContainText('did not fit this sign-in');
  await nobody(again);
  await page.context().close();
  await again.context().close();
});

test('a provider that is away is said to be', async ({ browser }) => {
  test.skip(!process.env.AWAY, 'AWAY names no orchestrator whose provider is away');
  const page = await somebody(browser);
  await page.goto(`${process.env.AWAY}/login`);
  await page.getByRole('link', { name: /^Sign in with 127\.0\.0\.1/ }).click();
  await expect(page.getByRole('alert')).toContainText('can’t be reached');
  await page.context().close();
});
