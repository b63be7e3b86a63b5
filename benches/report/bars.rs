//! Pairs of bars as a picture of its own (SVG), for light and dark pages.

use std::fmt::Write as _;

/// Pairs of bars on a logarithmic scale.
pub struct Bars {
    /// What they show.
    pub title: String,
    /// What stands below.
    pub note: String,
    /// What the numbers are.
    pub unit: &'static str,
    /// Whether little is good.
    pub less_is_better: bool,
    /// The pairs.
    pub pairs: Vec<Pair>,
}

/// Two servers' figures for one operation.
pub struct Pair {
    /// The operation.
    pub name: String,
    /// Kamailio's.
    pub kamailio: Option<f64>,
    /// ComSIPL's.
    pub comsipl: Option<f64>,
}

impl Pair {
    /// Whether there is nothing to show.
    pub const fn is_empty(&self) -> bool {
        self.kamailio.is_none() && self.comsipl.is_none()
    }
}

impl Bars {
    /// The picture.
    pub fn svg(&self) -> String {
        let height = TOP + PAIR_HEIGHT * self.pairs.len() as f64 + BOTTOM;
        let values = || self.pairs.iter().flat_map(|pair| [pair.kamailio, pair.comsipl]).flatten();
        let least = values().fold(f64::INFINITY, f64::min).max(1e-3);
        let greatest = values().fold(least * 10.0, f64::max);
        let (from, to) = (least.log10().floor(), greatest.log10().ceil());
        let x = |value: f64| LEFT + (value.log10() - from) / (to - from) * (WIDTH - LEFT - RIGHT);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" class=\"bars\"><title>{title}</title><style>{STYLE}</style>\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\
             <text class=\"title\" x=\"20\" y=\"30\">{title}</text>\
             <rect class=\"k\" x=\"20\" y=\"45\" width=\"12\" height=\"12\" rx=\"2\"/>\
             <text x=\"38\" y=\"55\">Kamailio</text>\
             <rect class=\"c\" x=\"110\" y=\"45\" width=\"12\" height=\"12\" rx=\"2\"/>\
             <text x=\"128\" y=\"55\">ComSIPL</text>\
             <text class=\"soft\" x=\"205\" y=\"55\">{} · logarithmic</text>",
            self.unit,
            title = escape(&self.title),
        );
        let bottom = height - BOTTOM + 4.0;
        for power in from as i32..=to as i32 {
            let at = x(10f64.powi(power));
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{at:.1} {}V{bottom:.1}\"/>\
                 <text class=\"soft\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                TOP - 6.0,
                bottom + 16.0,
                short(10f64.powi(power)),
            );
        }
        for (row, pair) in self.pairs.iter().enumerate() {
            let y = TOP + PAIR_HEIGHT * row as f64;
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 12.0,
                y + 21.0,
                escape(&pair.name)
            );
            for (class, value, y) in [("k", pair.kamailio, y + 3.0), ("c", pair.comsipl, y + 18.0)] {
                let Some(value) = value.filter(|value| *value > 0.0) else { continue };
                let _ = write!(
                    out,
                    "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"13\" rx=\"2\"/>\
                     <text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    (x(value) - LEFT).max(1.0),
                    x(value).max(LEFT) + 6.0,
                    y + 11.0,
                    short(value)
                );
            }
            if let (Some(kamailio), Some(comsipl)) = (pair.kamailio, pair.comsipl) {
                let times = if self.less_is_better { kamailio / comsipl } else { comsipl / kamailio };
                let class = if times >= 1.0 { "good" } else { "bad" };
                let _ = write!(
                    out,
                    "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} ×</text>",
                    WIDTH - 20.0,
                    y + 22.0,
                    short(times)
                );
            }
        }
        let _ = writeln!(
            out,
            "<text class=\"soft\" x=\"20\" y=\"{:.1}\">{}</text></svg>",
            height - 14.0,
            escape(&self.note)
        );
        out
    }
}

/// A number with three digits that count, grouped by thousands.
pub fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => grouped(value.round() as u64),
        value if value >= 10.0 => format!("{}", (value * 10.0).round() / 10.0),
        value => format!("{}", (value * 100.0).round() / 100.0),
    }
}

/// A number grouped by thousands.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits are text"))
        .collect();
    groups.join(",")
}

/// Text as XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 62.0;
const PAIR_HEIGHT: f64 = 40.0;
/// Scoped by the class, since the picture stands in the page, too.
const STYLE: &str = ".bars text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1c2330}\
.bars .title{font-size:16px;font-weight:600}.bars .soft{fill:#5c6675;font-size:12px}.bars .number{font-size:12px}\
.bars .ground{fill:#fff}.bars .grid{stroke:#e3e7ed}.bars .k{fill:#94a3b8}.bars .c{fill:#2563eb}\
.bars .good{fill:#15803d;font-weight:600}.bars .bad{fill:#b91c1c;font-weight:600}\
@media(prefers-color-scheme:dark){.bars text{fill:#e6eaf0}.bars .soft{fill:#98a3b3}.bars .ground{fill:#12161d}\
.bars .grid{stroke:#2a323e}.bars .k{fill:#64748b}.bars .c{fill:#60a5fa}.bars .good{fill:#4ade80}.bars .bad{fill:#f87171}}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_counts() {
        assert_eq!(
            [0.123, 7.0, 12.34, 123.4, 1_234_567.0].map(short),
            ["0.12", "7", "12.3", "123", "1,234,567"]
        );
    }

    #[test]
    fn a_missing_figure_has_no_bar() {
        let pair = |comsipl| Pair { name: "a".into(), kamailio: Some(10.0), comsipl };
        let bars = |pair| {
            let bars = Bars {
                title: String::new(),
                note: String::new(),
                unit: "",
                less_is_better: true,
                pairs: vec![pair],
            };
            bars.svg().matches("class=\"c\"").count()
        };
        assert_eq!((bars(pair(None)), bars(pair(Some(1.0)))), (1, 2));
    }
}
