// The page's words in the language that is chosen, and how the API's values and texts are put into it.
import type { Text } from "./api.ts";
import { usePreferences } from "./preferences.ts";
import type { Language } from "./preferences.ts";
import { en } from "./words.en.ts";
import type { Words } from "./words.en.ts";
import { zh } from "./words.zh.ts";

export type { Words };

const DICTIONARIES: Record<Language, Words> = { "zh-CN": zh, en };

export function useWords(): Words {
  return DICTIONARIES[usePreferences().language];
}

/** A text of the API in the language that is chosen. */
export function useTextOf(): (text: Text) => string {
  const { language } = usePreferences();
  return (text) => (language === "zh-CN" ? text.zh_cn : text.en);
}

/** What a value of the API is called. One that is not known here, of a newer Faultline, is shown as it is. */
export function nameOf(names: Readonly<Record<string, string>>, value: string): string {
  return Object.hasOwn(names, value) ? (names[value] ?? value) : value;
}

/** A value of a dimension as people read it. */
export function valueOf(words: Words, dimension: string, value: string): string {
  if (value === "") return words.notStated;
  return dimension === "entry_mode" ? nameOf(words.entryModes, value) : value;
}

/** What an incident is of, as a heading: `Issuer icbc · Entry mode Chip`. */
export function placeOf(words: Words, values: readonly { dimension: string; value: string }[]): string {
  const named = values.map(({ dimension, value }) => `${nameOf(words.dimensions, dimension)} ${valueOf(words, dimension, value)}`);
  return named.length === 0 ? words.incident.fleet : named.join(" · ");
}
