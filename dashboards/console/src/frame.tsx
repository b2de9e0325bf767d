// What is around every view: the header with tenant, terminal search and switches, and the footer that names the time zone.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { zoneName } from "./format.ts";
import { LANGUAGES, SCHEMES, usePreferences } from "./preferences.ts";
import type { Language, Scheme } from "./preferences.ts";
import { overviewAddress, terminalAddress } from "./route.ts";
import type { Route } from "./route.ts";
import { useWords } from "./words.ts";

/** Languages are named in themselves: who does not read the page's finds the other all the same. */
const LANGUAGE_NAMES: Record<Language, string> = { "zh-CN": "中文", en: "English" };

export function Frame({ route, tenants, children }: { route: Route; tenants: readonly string[]; children: ComponentChildren }) {
  const words = useWords();
  const main = useRef<HTMLElement>(null);
  const place = placeOf(route);
  const shown = useRef(place);
  useEffect(() => {
    if (shown.current === place) return;
    // As after the loading of a page: who reads by keyboard or ear begins with what is new.
    shown.current = place;
    main.current?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }, [place]);
  const tenant = "tenant" in route ? route.tenant : undefined;
  return (
    <>
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          // The address holds the route: following the link would leave it.
          event.preventDefault();
          main.current?.focus();
        }}
      >
        {words.frame.skip}
      </a>
      <header class="top">
        <a class="brand" href={tenant === undefined ? "#/" : overviewAddress(tenant)} aria-label={words.frame.home}>
          <Mark />
          {words.product}
        </a>
        {tenant !== undefined && <TenantChoice tenant={tenant} tenants={tenants} />}
        {tenant !== undefined && <TerminalSearch tenant={tenant} />}
        <Switches />
      </header>
      <main id="content" tabIndex={-1} ref={main}>
        {children}
      </main>
      <footer>{words.frame.zone(zoneName())}</footer>
    </>
  );
}

/** What a view is of. Another period of it is the same place. */
function placeOf(route: Route): string {
  return Object.entries(route)
    .filter(([key]) => key !== "minutes")
    .map(([, value]) => String(value))
    .join("/");
}

function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
      <path class="before" d="M3 20h9l3.5-6" />
      <path class="after" d="M16.5 21 20 13h9" />
    </svg>
  );
}

function TenantChoice({ tenant, tenants }: { tenant: string; tenants: readonly string[] }) {
  const words = useWords();
  if (tenants.length < 2) return <span class="tenant">{tenant}</span>;
  const all = tenants.includes(tenant) ? tenants : [tenant, ...tenants];
  return (
    <select
      class="tenant"
      aria-label={words.frame.tenant}
      value={tenant}
      onChange={(event) => {
        window.location.hash = overviewAddress(event.currentTarget.value);
      }}
    >
      {all.map((one) => (
        <option key={one}>{one}</option>
      ))}
    </select>
  );
}

function TerminalSearch({ tenant }: { tenant: string }) {
  const words = useWords();
  const [terminal, setTerminal] = useState("");
  return (
    <form
      class="search"
      role="search"
      aria-label={words.frame.findTerminal}
      onSubmit={(event) => {
        event.preventDefault();
        if (terminal.trim() !== "") window.location.hash = terminalAddress(tenant, terminal.trim());
      }}
    >
      <input
        type="search"
        name="terminal"
        aria-label={words.frame.terminalId}
        placeholder={words.frame.terminalId}
        maxLength={32}
        autocomplete="off"
        spellcheck={false}
        value={terminal}
        onInput={(event) => {
          setTerminal(event.currentTarget.value);
        }}
      />
      <button type="submit">{words.frame.find}</button>
    </form>
  );
}

function Switches() {
  const words = useWords();
  const { language, scheme, chooseLanguage, chooseScheme } = usePreferences();
  return (
    <div class="switches">
      <div class="choice" role="group" aria-label={words.frame.language}>
        {LANGUAGES.map((one: Language) => (
          <button key={one} type="button" lang={one} aria-pressed={one === language} onClick={() => { chooseLanguage(one); }}>
            {LANGUAGE_NAMES[one]}
          </button>
        ))}
      </div>
      <select
        aria-label={words.frame.scheme}
        value={scheme}
        onChange={(event) => {
          chooseScheme(event.currentTarget.value as Scheme);
        }}
      >
        {SCHEMES.map((one) => (
          <option key={one} value={one}>
            {words.frame.schemes[one]}
          </option>
        ))}
      </select>
    </div>
  );
}
