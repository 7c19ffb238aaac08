/**
 * The pictures of README and of the documentation, of a real orchestrator with the lab's three sites: see lab.spec.ts.
 * PICTURES is the folder that they are put into.
 */
import { expect, type Page, test } from '@playwright/test';

const folder = process.env.PICTURES ?? '';
test.skip(!folder, 'PICTURES names no folder');
test.use({ viewport: { width: 1200, height: 760 }, colorScheme: 'light', reducedMotion: 'reduce' });

interface List<T> {
  items: T[];
}

test('the pictures of the documentation', async ({ page }) => {
  await page.goto('/');
  await page.getByLabel('Username').fill(process.env.SELVEDGE_USER ?? '');
  await page.getByLabel('Password').fill(process.env.SELVEDGE_PASSWORD ?? '');
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByRole('heading', { name: 'Overview' })).toBeVisible();
  const tenant = new URL(page.url()).pathname.split('/')[2] ?? '';
  const get = async <T>(path: string): Promise<T[]> => {
    const answer = await page.request.get(`/api/v1/tenants/${tenant}${path}`);
    return ((await answer.json()) as List<T>).items;
  };
  const host = (await get<{ name: string }>('/hosts?limit=1&q=site:berlin'))[0] ?? (await get<{ name: string }>('/hosts?limit=1'))[0];
  const rollout = (await get<{ id: string; waves: unknown[] }>('/rollouts?limit=20')).find((one) => one.waves.length > 1);
  const views: [string, string][] = [
    ['overview', ''],
    ['sites', '/sites?view=map'],
    ['site', '/sites/berlin'],
    ['vswitch', `/hosts/${host?.name}/network`],
    ['rollout', `/rollouts/${rollout?.id}`],
  ];
  for (const [name, path] of views) {
    await page.goto(`/t/${tenant}${path}`);
    await settled(page);
    await page.screenshot({ path: `${folder}/${name}.png` });
  }
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.goto(`/t/${tenant}`);
  await settled(page);
  await page.screenshot({ path: `${folder}/overview-dark.png` });
});

/** All is there, and live. */
async function settled(page: Page): Promise<void> {
  await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
  await expect(page.getByText('Live', { exact: true })).toBeVisible();
  await expect(page.getByRole('status').filter({ hasText: 'Loading' })).toHaveCount(0);
  await page.evaluate(() => document.fonts.ready);
}
