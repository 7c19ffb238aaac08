/** A page that is signed in to the mock, and that fails the test on any error, broken policy or foreign request. */
import { test as base, expect, type Page } from '@playwright/test';

export const test = base.extend<{ signed: Page }>({
  signed: async ({ page, baseURL }, use) => {
    const trouble = watch(page, baseURL ?? '');
    await page.context().addCookies([{ name: 'selvedge_session', value: 'mock', url: baseURL ?? '' }]);
    await use(page);
    expect(trouble, 'errors of the page').toEqual([]);
  },
});

export function watch(page: Page, baseURL: string): string[] {
  const trouble: string[] = [];
  page.on('pageerror', (error) => trouble.push(`error: ${error.message}`));
  page.on('console', (message) => {
    // xterm.js tries <style> elements, is refused, and is served by a constructed sheet instead (console/strict.ts).
    const ofXterm = /inline style/i.test(message.text()) && /Serial-/.test(message.location().url);
    if (message.type() === 'error' && !ofXterm && !/ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_NETWORK_CHANGED|status of 4\d\d/.test(message.text())) trouble.push(`console: ${message.text()}`);
  });
  page.on('request', (request) => {
    const to = request.url();
    if (!to.startsWith(baseURL) && !/^(data|blob|about):/.test(to)) trouble.push(`foreign request: ${to}`);
  });
  return trouble;
}

export { expect };
