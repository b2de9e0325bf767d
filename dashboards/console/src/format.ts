// How numbers, money, times and durations are written in each language.
import { usePreferences } from "./preferences.ts";
import type { Language } from "./preferences.ts";
import { useWords } from "./words.ts";
import type { Words } from "./words.ts";

export interface Format {
  /** A count. */
  count: (count: number) => string;
  /** A number that need not be whole: with a decimal while it is small, and two digits of it where it is less than one. */
  amount: (amount: number) => string;
  /** A ratio in percent, always with one decimal, as it stands in columns. */
  share: (ratio: number) => string;
  /** A ratio in percent, without a decimal where it is whole. */
  roundShare: (ratio: number) => string;
  /** An amount in minor units of its currency. */
  money: (minor: number, currency: string) => string;
  /** Hours, minutes and seconds. */
  clock: (time: string | number) => string;
  /** Hours and minutes. */
  hour: (time: string | number) => string;
  /** A day without its year. */
  day: (time: string | number) => string;
  /** Day and clock; the day is left out while it is today. */
  moment: (time: string | number) => string;
  /** A length of time in its two largest units. */
  duration: (ms: number) => string;
}

/** English that counts hours from 0 to 23 and has the day before the month, as Chinese has the first. */
const LOCALES: Record<Language, string> = { "zh-CN": "zh-CN", en: "en-GB" };

const made = new Map<Language, Format>();

export function useFormat(): Format {
  const { language } = usePreferences();
  const words = useWords();
  const format = made.get(language) ?? formatOf(LOCALES[language], words);
  made.set(language, format);
  return format;
}

/** The browser's time zone by name and distance, as in `Asia/Shanghai (GMT+8)`. */
export function zoneName(): string {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" }).formatToParts();
  const offset = parts.find((part) => part.type === "timeZoneName")?.value ?? "";
  return offset === timeZone ? timeZone : `${timeZone} (${offset})`;
}

function formatOf(locale: string, words: Words): Format {
  const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
  const decimal = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
  const fraction = new Intl.NumberFormat(locale, { maximumSignificantDigits: 2 });
  const percent = new Intl.NumberFormat(locale, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const roundPercent = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1 });
  const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const hour = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric" });
  const at = (time: string | number) => new Date(time);
  return {
    count: (count) => whole.format(count),
    amount: (amount) => (amount < 1 ? fraction : amount < 100 ? decimal : whole).format(amount),
    share: (ratio) => percent.format(ratio),
    roundShare: (ratio) => roundPercent.format(ratio),
    money: (minor, currency) => moneyOf(locale, minor, currency),
    clock: (time) => clock.format(at(time)),
    hour: (time) => hour.format(at(time)),
    day: (time) => day.format(at(time)),
    moment: (time) => {
      const isToday = at(time).toDateString() === new Date().toDateString();
      return isToday ? clock.format(at(time)) : `${day.format(at(time))} ${clock.format(at(time))}`;
    },
    duration: (ms) => durationOf(words.units, ms),
  };
}

function moneyOf(locale: string, minor: number, currency: string): string {
  if (currency === "") return "";
  // What is no code of a currency cannot be formatted, and whoever wrote it meant something.
  if (!/^[A-Za-z]{3}$/.test(currency)) return `${minor} ${currency}`;
  const money = new Intl.NumberFormat(locale, { style: "currency", currency });
  const digits = money.resolvedOptions().maximumFractionDigits ?? 2;
  return money.format(minor / 10 ** digits);
}

function durationOf(units: Words["units"], ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), units.d],
    [Math.floor(seconds / 3600) % 24, units.h],
    [Math.floor(seconds / 60) % 60, units.min],
    [seconds % 60, units.s],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first === -1) return `0${units.s}`;
  const told = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return told.map(([count, unit]) => `${count}${unit}`).join(units.between);
}
