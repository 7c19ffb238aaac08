/** Dark or light: the system's choice until a person makes their own. */
type Choice = 'system' | 'light' | 'dark';
const KEY = 'selvedge.theme';

class Theme {
  choice = $state<Choice>('system');
  #dark = matchMedia('(prefers-color-scheme: dark)');
  #systemDark = $state(this.#dark.matches);

  constructor() {
    const kept = localStorage.getItem(KEY);
    if (kept === 'light' || kept === 'dark') this.choice = kept;
    this.#dark.addEventListener('change', (event) => {
      this.#systemDark = event.matches;
      this.#show();
    });
    this.#show();
  }

  get dark(): boolean {
    return this.choice === 'system' ? this.#systemDark : this.choice === 'dark';
  }

  set(choice: Choice): void {
    this.choice = choice;
    if (choice === 'system') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, choice);
    this.#show();
  }

  toggle(): void {
    this.set(this.dark ? 'light' : 'dark');
  }

  #show(): void {
    document.documentElement.dataset.theme = this.dark ? 'dark' : 'light';
  }
}

export const theme = new Theme();
