/** Copies text, also where a page opened by plain http has no clipboard API. */

export async function copyText(text: string, near: HTMLElement): Promise<boolean> {
  if (window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not permitted: the older way may be.
    }
  }
  // Inside the open dialog, if there is one: anything outside it cannot be selected.
  const host = near.closest("dialog") ?? document.body;
  const area = document.createElement("textarea");
  area.value = text;
  area.setAttribute("readonly", "");
  area.className = "visually-hidden";
  host.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  near.focus();
  return isCopied;
}
