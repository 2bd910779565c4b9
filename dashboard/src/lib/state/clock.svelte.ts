/** The time, once a second, for everything that says how long ago. */

class Clock {
  now = $state(Date.now());

  start(): void {
    setInterval(() => {
      if (document.visibilityState === "visible") this.now = Date.now();
    }, 1000);
  }
}

export const clock = new Clock();
