// The page in a browser, against a console that runs: CONSOLE_URL, of which TENANT is shown. A fleet has to report to it of which the bank
// icbc fails, from some time after this starts until after it ends: the first test waits for that incident, and the others look at it.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import axe from "axe-core";
import type { AxeResults } from "axe-core";
import { chromium } from "playwright-core";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";

const CONSOLE_URL = process.env.CONSOLE_URL ?? "http://127.0.0.1:18090";
const TENANT = process.env.TENANT ?? "demo";
const SCREENSHOTS = process.env.SCREENSHOTS;
const DESKTOP = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };
/** The fault begins more than a minute after the browser is started, is found in half a minute, and the two cores that it runs on have other work. */
const INCIDENT_TIMEOUT_MS = 150_000;
const MOST_SCRIPT_BYTES = 150_000;
const AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

let browser: Browser;
before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
});
after(() => browser.close());

test("an incident appears without reload", async () => {
  await visit("", {}, async (page) => {
    const incidents = page.getByRole("region", { name: "Incidents" });
    await incidents.getByText("No incident in the last 24 hours.").waitFor();
    await page.evaluate(() => {
      Object.assign(window, { loadedOnce: true });
    });
    const row = incidents.getByRole("listitem").filter({ hasText: "Open" });
    await row.first().waitFor({ timeout: INCIDENT_TIMEOUT_MS });
    assert.match(await page.locator("[aria-live=polite]").innerText(), /^New incident: .*icbc/);
    await row.first().getByRole("link").click();
    await page.getByRole("heading", { level: 1, name: /icbc/ }).waitFor();
    assert.match(page.url(), new RegExp(`#/${TENANT}/incidents/.+`));
    assert.equal(await page.evaluate(() => "loadedOnce" in window), true, "the page was loaded again");
  });
});

test("the overview says what the last minute was like, whose fault failures are, and which incidents are open", async () => {
  await visit("", {}, async (page) => {
    const minute = page.getByRole("region", { name: "Last minute" });
    // The fault may be younger than the minute that is shown.
    await minute.filter({ hasText: /Bank\s*[1-9]/ }).waitFor({ timeout: 90_000 });
    const figures = await minute.innerText();
    assert.match(figures, /Success rate\s+\d+\.\d%/);
    assert.match(figures, /Attempts\s+[1-9][\d,]*\s/, "no attempt in the last minute");
    assert.match(figures, /Bank\s+[1-9][\d,]*\s/, "no failure of the bank in the last minute");
    assert.match(figures, /Open incidents\s+[1-9]/);
    const open = page.getByRole("region", { name: "Incidents" }).getByRole("listitem").filter({ hasText: "icbc" }).first();
    assert.match(await open.innerText(), /^Open\s+Bank\s[\s\S]*since [\s\S]*of [\d,]+ attempts failed/);
    assert.equal(await page.title(), `Overview · ${TENANT} · Faultline`);
  });
});

test("the overview's charts show the bank's failures, in shares or counts, over the period that is chosen", async () => {
  await visit("?minutes=15", {}, async (page) => {
    const failures = page.getByRole("region", { name: "Failures by cause" });
    await paintedIn(page, failures.locator("canvas"), "--bank");
    await paintedIn(page, page.getByRole("region", { name: "Volume against what is usual" }).locator("canvas"), "--approved");
    const figure = failures.getByRole("img");
    assert.match((await figure.getAttribute("aria-label")) ?? "", /Bank \d+\.\d%.*Most failures: \d+\.\d%/);
    await failures.getByRole("button", { name: "Count" }).click();
    await failures.getByText("per minute").waitFor();
    assert.match((await figure.getAttribute("aria-label")) ?? "", /Bank [\d.,]+, Account/);
    const before = await figure.getAttribute("aria-label");
    await page.getByRole("link", { name: "6 h" }).click();
    await page.waitForFunction((label) => document.querySelector("[role=img]")?.getAttribute("aria-label") !== label, before);
    assert.match(page.url(), /\?minutes=360$/);
    assert.equal(await page.getByRole("link", { name: "6 h" }).getAttribute("aria-current"), "true");
  });
});

test("an incident says what fails, since when, by what evidence, and which transactions", async () => {
  const { incident } = await addresses();
  await visit(incident, {}, async (page) => {
    await page.getByRole("heading", { level: 1, name: /^Issuer icbc/ }).waitFor();
    const facts = await page.getByRole("region", { name: "Incident", exact: true }).innerText();
    assert.match(facts, /Cause\s+Bank\s+Issuer\s+icbc/);
    assert.match(facts, /Opened\s+.*\d\d:\d\d:\d\d .* after it began/);
    const evidence = await page.getByRole("region", { name: "Evidence" }).innerText();
    assert.match(evidence, /Failed so\s+[\d,]+ [\d.]+%[\s\S]*Strength\s+[\d,.]+ nats/);
    const explained = await page.getByRole("region", { name: "Narrowed down" }).innerText();
    assert.match(explained, /Share of such failures\s+[\d.]+%[\s\S]*Merchants\s+\d[\s\S]*Terminals\s+\d[\s\S]*To be paid\s+CN¥[\d,.]+/);
    await paintedIn(page, page.getByRole("region", { name: "Failures by cause" }).locator("canvas"), "--bank");
    assert.match(await page.getByRole("region", { name: "History" }).innerText(), /Open\s+Revision \d/);
    const example = page.getByRole("region", { name: "Failed transactions" }).getByRole("row").nth(1);
    assert.match(await example.innerText(), /CN¥[\d,.]+\s+Host's answer\s+\d\d\s/);
    await example.getByRole("link").click();
    await page.getByRole("heading", { level: 1, name: /^Terminal / }).waitFor();
  });
});

test("a terminal shows its transactions, each with verdict and advice behind a button that keys work", async () => {
  const { terminal } = await addresses();
  await visit(terminal, {}, async (page) => {
    const failed = page.getByRole("row").filter({ hasText: "Bank" }).first();
    await failed.waitFor();
    assert.match(await page.getByRole("region", { name: "Terminal" }).innerText(), /Merchant\s+\S+[\s\S]*Firmware\s+\S+/);
    assert.match(await page.getByRole("region", { name: "By cause" }).innerText(), /Bank\s+[1-9]/);
    const fold = failed.getByRole("button");
    await fold.press("Enter");
    assert.equal(await fold.getAttribute("aria-expanded"), "true");
    const details = await page.locator("tr.details").innerText();
    assert.match(details, /Cashier\s+\S+[\s\S]*Service desk\s+\S+[\s\S]*Confidence\s+\d+%[\s\S]*Total\s+[\d,]+ ms/);
    await fold.press("Enter");
    await page.locator("tr.details").waitFor({ state: "detached" });
  });
});

test("a terminal is found by its ID, and one that is unknown is said to be", async () => {
  const { terminal } = await addresses();
  const id = decodeURIComponent(terminal.split("/").at(-1) ?? "");
  await visit("", {}, async (page) => {
    await page.getByRole("searchbox", { name: "Terminal ID" }).fill(id);
    await page.getByRole("button", { name: "Find" }).click();
    await page.getByRole("heading", { level: 1, name: `Terminal ${id}` }).waitFor();
    await page.getByRole("searchbox", { name: "Terminal ID" }).fill("no-such-terminal");
    await page.keyboard.press("Enter");
    await page.getByText("Nothing was reported by “no-such-terminal”").waitFor();
  });
});

test("what does not exist is said not to, with a way back", async () => {
  await visit("/nothing/of/this", {}, async (page) => {
    await page.getByRole("heading", { name: "Not found" }).waitFor();
    await page.getByRole("link", { name: "Go to the first tenant" }).click();
    await page.getByRole("region", { name: "Last minute" }).waitFor();
  });
  const expected = /404/;
  await visit("/incidents/no-such-incident", {}, async (page) => {
    await page.getByText("There is no incident “no-such-incident”").waitFor();
    await page.getByRole("link", { name: "Go to the overview" }).click();
    await page.getByRole("region", { name: "Incidents" }).waitFor();
  }, expected);
});

test("while the console does not answer, the page keeps what it has, says so, and recovers by itself", async () => {
  const expected = /503/;
  await visit("", {}, async (page) => {
    await page.getByRole("region", { name: "Last minute" }).waitFor();
    const problem = { type: "about:blank", title: "Service Unavailable", status: 503, detail: "ClickHouse does not answer." };
    await page.route("**/api/v1/**", (route) => route.fulfill({ status: 503, contentType: "application/problem+json", json: problem }));
    const banner = page.getByText(/^Not up to date since \d\d:\d\d:\d\d: ClickHouse does not answer\./);
    await banner.waitFor();
    assert.match(await page.getByRole("region", { name: "Last minute" }).innerText(), /\d%/);
    await page.unroute("**/api/v1/**");
    await banner.waitFor({ state: "detached", timeout: 60_000 });
  }, expected);
});

test("a hidden tab asks for nothing, and asks at once when it is seen again", async () => {
  await visit("", {}, async (page) => {
    await page.clock.install();
    await page.reload();
    await page.getByRole("region", { name: "Last minute" }).waitFor();
    const asked: string[] = [];
    page.on("request", (request) => asked.push(request.url()));
    const see = (isHidden: boolean) =>
      page.evaluate((hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      }, isHidden);
    await see(true);
    await page.clock.runFor(300_000);
    assert.deepEqual(asked, []);
    const answers = page.waitForResponse(/\/summary$/);
    await see(false);
    await answers;
  });
});

test("both languages are whole, follow the browser, and are kept when chosen", async () => {
  const { incident } = await addresses();
  const cjk = /\p{Script=Han}/u;
  await visit(incident, { locale: "zh-CN" }, async (page) => {
    const lead = page.locator(".lead");
    await lead.waitFor();
    assert.equal(await page.locator("html").getAttribute("lang"), "zh-CN");
    assert.match(await page.title(), /^发卡行 icbc/);
    assert.equal(await page.locator(".back").innerText(), "总览");
    assert.match(await lead.innerText(), /发卡行 icbc.*责任方：银行/);
    await page.getByRole("button", { name: "English" }).click();
    assert.equal(await page.locator("html").getAttribute("lang"), "en");
    await page.waitForFunction(() => document.title.startsWith("Issuer icbc"));
    assert.equal(await page.locator(".back").innerText(), "Overview");
    assert.doesNotMatch(await lead.innerText(), cjk);
    assert.doesNotMatch((await page.locator("body").innerText()).replace("中文", ""), cjk);
    await page.reload();
    await lead.waitFor();
    assert.equal(await page.locator("html").getAttribute("lang"), "en");
  });
});

test("dark and light follow the browser, and are kept when chosen", async () => {
  const backgroundOf = (page: Page) => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  let light = "";
  await visit("", { colorScheme: "light" }, async (page) => {
    await page.getByRole("region", { name: "Incidents" }).waitFor();
    light = await backgroundOf(page);
  });
  await visit("", { colorScheme: "dark" }, async (page) => {
    await page.getByRole("region", { name: "Incidents" }).waitFor();
    assert.notEqual(await backgroundOf(page), light);
    await page.getByRole("combobox", { name: "Appearance" }).selectOption("light");
    assert.equal(await backgroundOf(page), light);
    await page.reload();
    await page.getByRole("region", { name: "Incidents" }).waitFor();
    assert.equal(await backgroundOf(page), light);
  });
});

test("on a phone no view is wider than the screen", async () => {
  for (const [view, address] of Object.entries(await addresses())) {
    for (const locale of ["en", "zh-CN"]) {
      await visit(address, { viewport: PHONE, locale }, async (page) => {
        await shown(page, view);
        const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth] as const);
        assert.ok(content <= screen, `${view} in ${locale} is ${content} px wide`);
      });
    }
  }
});

test("axe finds nothing in any view, in either theme", async () => {
  for (const [view, address] of Object.entries(await addresses())) {
    for (const colorScheme of ["light", "dark"] as const) {
      await visit(address, { colorScheme }, async (page) => {
        await shown(page, view);
        const { violations } = await page.evaluate((tags) => {
          const { axe } = window as unknown as { axe: { run: (context: Document, options: object) => Promise<AxeResults> } };
          return axe.run(document, { runOnly: tags });
        }, AXE_TAGS);
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
        assert.deepEqual(found, [], `${view}, ${colorScheme}`);
      });
    }
  }
});

test("pictures of each view", { skip: SCREENSHOTS === undefined && "SCREENSHOTS names no directory" }, async () => {
  const kinds = {
    "desktop-light-en": { colorScheme: "light", locale: "en" },
    "desktop-dark-zh": { colorScheme: "dark", locale: "zh-CN" },
    "phone-light-zh": { colorScheme: "light", locale: "zh-CN", viewport: PHONE },
  } as const;
  for (const [view, address] of Object.entries(await addresses())) {
    for (const [kind, options] of Object.entries(kinds)) {
      await visit(address, options, async (page) => {
        await shown(page, view);
        const picture = await page.screenshot({ path: `${SCREENSHOTS}/${view}-${kind}.png`, fullPage: true });
        assert.ok(picture.length > 0);
      });
    }
  }
});

test("the scripts are small", () => {
  const assets = new URL("../dist/assets/", import.meta.url);
  const scripts = readdirSync(assets).filter((name) => name.endsWith(".js"));
  const bytes = scripts.reduce((sum, name) => sum + gzipSync(readFileSync(new URL(name, assets))).length, 0);
  assert.ok(scripts.length > 0 && bytes < MOST_SCRIPT_BYTES, `${bytes} bytes in ${scripts.length} scripts`);
});

/**
 * Shows what stands at `rest`, behind the tenant, in a browser of its own that keeps nothing. Errors in the browser's console and requests
 * that fail are errors of the test, but for those that are expected.
 */
async function visit(rest: string, options: BrowserContextOptions, look: (page: Page) => Promise<void>, expected?: RegExp) {
  const context = await browser.newContext({ viewport: DESKTOP, locale: "en", ...options });
  try {
    await context.addInitScript({ content: axe.source });
    const page = await context.newPage();
    const troubles: string[] = [];
    page.on("pageerror", (error) => troubles.push(error.message));
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") troubles.push(message.text());
    });
    page.on("response", (answer) => {
      if (answer.status() >= 400) troubles.push(`${answer.status()} ${answer.url()}`);
    });
    page.on("requestfailed", (request) => {
      // The page itself gives up what it asked for a view that is left.
      if (request.failure()?.errorText !== "net::ERR_ABORTED") troubles.push(`${request.failure()?.errorText} ${request.url()}`);
    });
    await page.goto(`${CONSOLE_URL}/#/${TENANT}${rest}`);
    await look(page);
    assert.deepEqual(troubles.filter((trouble) => !expected?.test(trouble)), []);
  } finally {
    await context.close();
  }
}

/** The addresses of the three views: of an open incident, and of a terminal whose transaction it failed. */
async function addresses(): Promise<{ overview: string; incident: string; terminal: string }> {
  const ask = async <T>(what: string) => (await (await fetch(`${CONSOLE_URL}/api/v1/tenants/${TENANT}/${what}`)).json()) as T;
  const { incidents } = await ask<{ incidents: { incident_id: string; slice: string }[] }>("incidents?state=open");
  const { outcomes } = await ask<{ outcomes: { terminal: string }[] }>("outcomes?slice=issuer%3Dicbc&cause=bank&limit=1");
  const incident = incidents.find(({ slice }) => slice.includes("issuer=icbc"));
  assert.ok(incident, "there is no open incident of icbc");
  assert.ok(outcomes[0], "there is no failed transaction of icbc");
  return {
    overview: "",
    incident: `/incidents/${encodeURIComponent(incident.incident_id)}`,
    terminal: `/terminals/${encodeURIComponent(outcomes[0].terminal)}`,
  };
}

/** Waits until a view shows all that it has, one transaction's details included. */
async function shown(page: Page, view: string) {
  if (view === "terminal") {
    await page.locator("tbody button").first().click();
    await page.locator("tr.details").waitFor();
    return;
  }
  await page.locator(view === "incident" ? ".lead" : ".minute").waitFor();
  await page.locator("canvas").nth(1).waitFor();
  await page.locator(view === "incident" ? "tbody tr" : ".incidents li").first().waitFor();
}

/** Waits until something in this colour of the page is painted, or almost in it: thin lines have soft edges. */
async function paintedIn(page: Page, canvas: ReturnType<Page["locator"]>, colour: string) {
  const element = await canvas.elementHandle();
  await page.waitForFunction(
    ([painted, name]) => {
      if (!(painted instanceof HTMLCanvasElement)) return false;
      const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const [red, green, blue] = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
      const { data } = painted.getContext("2d")?.getImageData(0, 0, painted.width, painted.height) ?? { data: [] };
      const isNear = (at: number, wanted = 0) => Math.abs((data[at] ?? 0) - wanted) < 20;
      return data.some((_, at) => at % 4 === 0 && isNear(at, red) && isNear(at + 1, green) && isNear(at + 2, blue) && data[at + 3] === 255);
    },
    [element, colour] as const,
  );
}
