/**
 * xterm.js writes its theme into <style> elements, which a strict content security policy does not apply. This mirrors
 * their text into a constructed style sheet, which it does, so that the page needs no 'unsafe-inline' anywhere.
 */
export function mirrorStyles(root: HTMLElement): () => void {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  let last = '';
  const read = (): void => {
    const text = [...root.querySelectorAll('style')].map((style) => style.textContent ?? '').join('\n');
    if (text === last) return;
    last = text;
    sheet.replaceSync(text);
  };
  const observer = new MutationObserver(read);
  observer.observe(root, { childList: true, subtree: true, characterData: true });
  read();
  return () => {
    observer.disconnect();
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
  };
}

/** The address of a WebSocket below the API. */
export function socketUrl(path: string): string {
  return `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}/api/v1${path}`;
}
