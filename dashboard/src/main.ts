import { mount } from "svelte";
import App from "./App.svelte";
import "./styles.css";
import { clock } from "./lib/state/clock.svelte";
import { fleet } from "./lib/state/fleet.svelte";
import { route } from "./lib/state/route.svelte";
import { settings } from "./lib/state/settings.svelte";

settings.applyTheme();
clock.start();
route.start();
fleet.start();

const target = document.getElementById("app");
if (target) mount(App, { target });
