import { readable } from "./glyphs";
import { digits, percent } from "./numbers";
import { Token } from "./token";

export interface AnswerWords {
  title: string;
  words: string[];
  /** Probabilities, or plain numbers where nothing is a probability. */
  values: ArrayLike<number>;
}

/** What a network says in several cases, side by side: the likeliest words of each. */
export function Answers({ label, answers, isShare }: { label: string; answers: AnswerWords[]; isShare: boolean }) {
  return (
    <div class="iv-answers" role="group" aria-label={label}>
      {answers.map((answer) => (
        <section key={answer.title} aria-label={answer.title}>
          <h4 class="iv-small">{readable(answer.title)}</h4>
          <ol class="iv-answer">
            {answer.words.map((word, i) => (
              <li key={i}>
                <Token text={word} />
                {isShare && (
                  <span class="iv-look-bar" aria-hidden="true">
                    <i style={{ width: `${Math.min(100, answer.values[i]! * 100)}%` }} />
                  </span>
                )}
                <span class="iv-num">{isShare ? percent(answer.values[i]!) : digits(answer.values[i]!)}</span>
              </li>
            ))}
          </ol>
        </section>
      ))}
    </div>
  );
}
