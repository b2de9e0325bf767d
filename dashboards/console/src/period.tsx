// The choice of how far back a view looks: links, so that an address says what is seen.
import { useWords } from "./words.ts";

interface Props {
  readonly minutes: number;
  readonly periods: readonly (keyof ReturnType<typeof useWords>["period"]["lengths"])[];
  readonly address: (minutes: number) => string;
}

export function PeriodChoice({ minutes, periods, address }: Props) {
  const words = useWords();
  return (
    <nav class="choice" aria-label={words.period.label}>
      {periods.toSorted((one, other) => one - other).map((period) => (
        <a key={period} href={address(period)} aria-current={period === minutes ? "true" : undefined}>
          {words.period.lengths[period]}
        </a>
      ))}
    </nav>
  );
}
