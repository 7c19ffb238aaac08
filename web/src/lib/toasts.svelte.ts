/** Short notes that an action worked; what failed is shown where it was tried. */
class Toasts {
  items = $state<{ id: number; text: string }[]>([]);
  #last = 0;
  say(text: string): void {
    const id = ++this.#last;
    this.items = [...this.items.slice(-2), { id, text }];
    setTimeout(() => this.dismiss(id), 5000);
  }
  dismiss(id: number): void {
    this.items = this.items.filter((item) => item.id !== id);
  }
}
export const toasts = new Toasts();
