//! Prometheus text, format 0.0.4.
//! Spec: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::fmt::{Display, Write as _};

use super::instruments::{BOUNDS_US, Histogram};

/// A text under construction. Write one family at a time: its samples follow it until the next family begins.
#[derive(Default)]
pub(crate) struct Exposition {
    text: String,
    /// Name of the family being written.
    name: &'static str,
}

impl Exposition {
    /// What an HTTP answer says about the text.
    pub(crate) const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// An empty text.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A family of counters; names end in `_total`.
    pub(crate) fn counters(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.family(name, "counter", help)
    }

    /// A family of gauges.
    pub(crate) fn gauges(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.family(name, "gauge", help)
    }

    /// A family of histograms; names end in `_seconds`.
    pub(crate) fn histograms(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.family(name, "histogram", help)
    }

    /// One value of the current family. Labels must have few values; never a number or JID of a person.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// One distribution of the current family.
    pub(crate) fn distribution(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let cumulative = histogram.cumulative();
        for (bound_us, count) in BOUNDS_US.iter().zip(cumulative) {
            self.line("_bucket", labels, Some(&seconds(*bound_us)), count);
        }
        let all = cumulative.last().copied().unwrap_or(0);
        self.line("_bucket", labels, Some("+Inf"), all);
        self.line("_sum", labels, None, seconds(histogram.sum_us()));
        self.line("_count", labels, None, all)
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Self {
        self.name = name;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        self
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl Display,
    ) -> &mut Self {
        let name = self.name;
        self.push(format_args!("{name}{suffix}"));
        let mut open = '{';
        for (label, text) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.push(format_args!("{open}{label}=\"{text}\""));
            open = ',';
        }
        if open == ',' {
            self.text.push('}');
        }
        self.push(format_args!(" {value}\n"));
        self
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a string takes everything");
    }
}

/// Microseconds as seconds, exactly, without superfluous digits.
fn seconds(microseconds: u64) -> String {
    let (whole, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{rest:06}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_have_help_type_and_escaped_samples() {
        let mut out = Exposition::new();
        out.counters("a_total", "What\nis \\ counted").sample(&[], 3);
        out.gauges("b", "Set").sample(&[("state", "x\"y\\\n"), ("z", "")], 0.5);
        let expected = "# HELP a_total What\\nis \\\\ counted\n# TYPE a_total counter\na_total 3\n\
                        # HELP b Set\n# TYPE b gauge\nb{state=\"x\\\"y\\\\\\n\",z=\"\"} 0.5\n";
        assert_eq!(out.finish(), expected);
    }

    #[test]
    fn a_histogram_ends_with_infinity_sum_and_count() {
        let histogram = Histogram::new();
        histogram.observe(Duration::from_micros(300));
        let mut out = Exposition::new();
        out.histograms("took_seconds", "Time").distribution(&[("route", "/a")], &histogram);
        let text = out.finish();
        assert!(text.contains("took_seconds_bucket{route=\"/a\",le=\"0.00025\"} 0\n"), "{text}");
        assert!(text.contains("took_seconds_bucket{route=\"/a\",le=\"0.0005\"} 1\n"), "{text}");
        let end = "_bucket{route=\"/a\",le=\"+Inf\"} 1\ntook_seconds_sum{route=\"/a\"} 0.0003\n\
                   took_seconds_count{route=\"/a\"} 1\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn microseconds_become_exact_seconds() {
        let shown = [0, 1, 250, 2_500_000, 60_000_000].map(seconds);
        assert_eq!(shown, ["0", "0.000001", "0.00025", "2.5", "60"]);
    }
}
