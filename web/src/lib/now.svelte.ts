/** One clock for all relative times on the page. */
class Now {
  value = $state(Date.now());
  constructor() {
    setInterval(() => {
      if (!document.hidden) this.value = Date.now();
    }, 10_000);
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.value = Date.now();
    });
  }
}
export const now = new Now();
