// Language and appearance: what the browser asks for, until somebody chooses otherwise here.
import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";

export const LANGUAGES = ["zh-CN", "en"] as const;
export type Language = (typeof LANGUAGES)[number];
export const SCHEMES = ["auto", "light", "dark"] as const;
export type Scheme = (typeof SCHEMES)[number];

export interface Preferences {
  readonly language: Language;
  readonly scheme: Scheme;
  /** What `scheme` comes to now. */
  readonly theme: "light" | "dark";
  readonly chooseLanguage: (language: Language) => void;
  readonly chooseScheme: (scheme: Scheme) => void;
}

export const PreferencesContext = createContext<Preferences | undefined>(undefined);

export function usePreferences(): Preferences {
  const preferences = useContext(PreferencesContext);
  if (!preferences) throw new Error("there is no PreferencesContext around this component");
  return preferences;
}

/** The preferences themselves, for the one component that hands them out. The document follows them. */
export function useOwnPreferences(): Preferences {
  const [language, chooseLanguage] = useKept("language", LANGUAGES, navigator.language.startsWith("zh") ? "zh-CN" : "en");
  const [scheme, chooseScheme] = useKept("scheme", SCHEMES, "auto");
  const prefersDark = usePrefersDark();
  const theme = scheme === "auto" ? (prefersDark ? "dark" : "light") : scheme;
  // While rendering, so that what reads colours or the language from the document afterwards reads the new ones.
  document.documentElement.lang = language;
  document.documentElement.dataset.theme = theme;
  return { language, scheme, theme, chooseLanguage, chooseScheme };
}

function useKept<T extends string>(name: string, possible: readonly T[], otherwise: T): [T, (value: T) => void] {
  const [value, setValue] = useState(() => possible.find((one) => one === read(name)) ?? otherwise);
  const choose = (chosen: T) => {
    setValue(chosen);
    write(name, chosen);
  };
  return [value, choose];
}

// Browsers that are told to keep nothing throw on the mere mention of localStorage; the choice then lasts as long as the page.
function read(name: string): string | null {
  try {
    return localStorage.getItem(`faultline.${name}`);
  } catch {
    return null;
  }
}

function write(name: string, value: string) {
  try {
    localStorage.setItem(`faultline.${name}`, value);
  } catch {
    return;
  }
}

function usePrefersDark(): boolean {
  const [query] = useState(() => window.matchMedia("(prefers-color-scheme: dark)"));
  const [matches, setMatches] = useState(query.matches);
  useEffect(() => {
    const onChange = () => {
      setMatches(query.matches);
    };
    query.addEventListener("change", onChange);
    return () => {
      query.removeEventListener("change", onChange);
    };
  }, [query]);
  return matches;
}
