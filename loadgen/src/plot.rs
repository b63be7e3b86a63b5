//! Line plots as SVG, styled by the page that they stand in.

use std::fmt::Write as _;

/// Size in units of the picture.
const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 320.0;
/// Room for the labels of the axes.
const LEFT: f64 = 78.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 44.0;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; values must be positive.
    Log,
}

/// One of the two axes.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: &'static str,
    /// How.
    pub scale: Scale,
    /// The least value.
    pub from: f64,
    /// The greatest value.
    pub to: f64,
    /// Values that are marked, with their text.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number that is at least `to`.
    pub fn linear(label: &'static str, to: f64) -> Self {
        let to = if to.is_finite() && to > 0.0 { to } else { 1.0 };
        let magnitude = 10f64.powf((to / 4.0).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * magnitude);
        let step = steps.into_iter().find(|step| to / step <= 5.0).unwrap_or(magnitude * 10.0);
        let count = (to / step - 1e-9).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|i| (f64::from(i) * step, number(f64::from(i) * step))).collect();
        Self { label, scale: Scale::Linear, from: 0.0, to: f64::from(count) * step, ticks }
    }

    /// From 0 to exactly `to`.
    pub fn time(to_secs: f64) -> Self {
        let axis = Self::linear("seconds since the start", to_secs);
        let ticks = axis.ticks.into_iter().filter(|(value, _)| *value <= to_secs).collect();
        Self { to: to_secs.max(1e-3), ticks, ..axis }
    }

    /// From exactly `from` to exactly `to`.
    pub fn time_between(from_secs: f64, to_secs: f64) -> Self {
        // As many ticks as the part alone would have, at round times of the whole.
        let step = Self::linear("", to_secs - from_secs).ticks[1].0;
        let first = (from_secs / step).ceil();
        let ticks = (0..).map(|i| (first + f64::from(i)) * step).take_while(|&at| at <= to_secs);
        let ticks = ticks.map(|at| (at, number(at))).collect();
        Self {
            from: from_secs,
            to: to_secs.max(from_secs + 1e-3),
            ticks,
            ..Self::linear("seconds since the start", 1.0)
        }
    }

    /// Microseconds from `from` to `to`, both widened to a 1, 2 or 5 of their magnitude.
    pub fn micros(label: &'static str, from: f64, to: f64) -> Self {
        let rungs: Vec<f64> =
            (0..10).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power))).collect();
        let first = rungs.iter().rposition(|&rung| rung <= from).unwrap_or(0);
        let last = rungs.iter().position(|&rung| rung >= to).unwrap_or(rungs.len() - 1).max(first + 1);
        let shown = &rungs[first..=last];
        // Many magnitudes are marked by their powers of ten alone.
        let sparse = shown.len() > 12;
        let ticks = shown.iter().copied().filter(|rung| !sparse || rung.log10().fract().abs() < 1e-9);
        let ticks = ticks.map(|rung| (rung, micros(rung))).collect();
        Self { label, scale: Scale::Log, from: shown[0], to: shown[shown.len() - 1], ticks }
    }

    /// Shares of all values on a scale on which every further nine takes as much room. A share `q` lies at 1/(1-q).
    pub fn percentiles(to: f64) -> Self {
        let names = ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%", "99.99999%"];
        let nines = (to.log10() - 1e-9).ceil().clamp(1.0, (names.len() - 1) as f64);
        let mut ticks: Vec<_> =
            (0..).zip(names).map(|(nine, name)| (10f64.powi(nine), name.to_string())).collect();
        ticks.truncate(nines as usize + 1);
        ticks.insert(1, (2.0, "50%".into()));
        ticks.insert(2, (4.0, "75%".into()));
        Self { label: "share of all", scale: Scale::Log, from: 1.0, to: 10f64.powf(nines), ticks }
    }

    /// Where `value` lies between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => {
                let value = value.max(f64::MIN_POSITIVE);
                (value / self.from).log10() / (self.to / self.from).log10()
            }
        };
        place.clamp(0.0, 1.0)
    }
}

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its colour, by number.
    pub colour: usize,
    /// Whether it is of minor interest.
    pub dashed: bool,
    /// Its points, by rising first value.
    pub points: Vec<(f64, f64)>,
}

/// A marked range of the horizontal axis.
#[derive(Clone, Debug)]
pub struct Band {
    /// What happened there.
    pub name: String,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Whether it is the one that matters.
    pub strong: bool,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines.
    pub lines: Vec<Line>,
    /// Ranges of the horizontal axis.
    pub bands: Vec<Band>,
}

impl Plot {
    /// The picture with its legend, as HTML.
    pub fn html(&self) -> String {
        let (inner_width, inner_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x = |value: f64| LEFT + self.x.place(value) * inner_width;
        let y = |value: f64| TOP + (1.0 - self.y.place(value)) * inner_height;
        let (bottom, right) = (TOP + inner_height, LEFT + inner_width);
        let mut out = String::from("<figure><p class=legend>");
        for line in &self.lines {
            let dashed = if line.dashed { " dashed" } else { "" };
            let _ = write!(
                out,
                "<span><i class=\"c{}{dashed}\"></i>{}</span>",
                line.colour % 6,
                escape(&line.name)
            );
        }
        let _ = write!(out, "</p><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img>");
        for band in &self.bands {
            let (from, to) = (x(band.from), x(band.to));
            let class = if band.strong { "band strong" } else { "band" };
            let name = escape(&band.name);
            let _ = write!(
                out,
                "<rect class=\"{class}\" x={from:.1} y={TOP} width={:.1} height={inner_height}><title>{name}</title></rect>",
                to - from
            );
            // A name is written where it fits.
            if to - from > 6.5 * band.name.chars().count() as f64 + 8.0 {
                let _ = write!(
                    out,
                    "<text class=note x={:.1} y={:.1} text-anchor=middle>{name}</text>",
                    (from + to) / 2.0,
                    TOP - 7.0
                );
            }
        }
        for (value, text) in &self.y.ticks {
            let at = y(*value);
            let _ = write!(
                out,
                "<path class=grid d=\"M{LEFT} {at:.1}H{right}\"/><text x={:.1} y={:.1} text-anchor=end>{text}</text>",
                LEFT - 8.0,
                at + 4.0
            );
        }
        for (value, text) in &self.x.ticks {
            let at = x(*value);
            let _ = write!(
                out,
                "<path class=grid d=\"M{at:.1} {TOP}V{bottom}\"/><text x={at:.1} y={:.1} text-anchor=middle>{text}</text>",
                bottom + 17.0
            );
        }
        let _ = write!(
            out,
            "<text class=label x={:.1} y={:.1} text-anchor=middle>{}</text>\
             <text class=label transform=\"translate(15 {:.1}) rotate(-90)\" text-anchor=middle>{}</text>",
            LEFT + inner_width / 2.0,
            HEIGHT - 6.0,
            self.x.label,
            TOP + inner_height / 2.0,
            self.y.label
        );
        for line in &self.lines {
            let dashed = if line.dashed { " dashed" } else { "" };
            let _ = write!(out, "<path class=\"line c{}{dashed}\" d=\"", line.colour % 6);
            for (i, &(at_x, at_y)) in line.points.iter().enumerate() {
                let _ = write!(out, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x(at_x), y(at_y));
            }
            out.push_str("\"/>");
        }
        out.push_str("</svg></figure>");
        out
    }
}

/// A number with at most three digits and its power of a thousand.
fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    format!("{}{unit}", (value * 100.0).round() / 100.0)
}

/// Microseconds in their natural unit.
fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", us / 1e6),
        us if us >= 1e3 => format!("{} ms", us / 1e3),
        us => format!("{us} µs"),
    }
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| &**text).collect()
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(texts(&Axis::linear("", 47.0)), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(texts(&Axis::linear("", 0.9)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(Axis::linear("", 0.0).to, 1.0);
        assert_eq!(texts(&Axis::linear("", 115_000.0)).last(), Some(&"125 k"));
        assert_eq!(Axis::time(33.0).to, 33.0);
        assert_eq!(texts(&Axis::time_between(17.0, 77.0)), ["20", "40", "60"]);
        let micros = Axis::micros("", 130.0, 3_000.0);
        assert_eq!(texts(&micros), ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]);
    }

    #[test]
    fn every_nine_takes_as_much_room() {
        let axis = Axis::percentiles(1_000.0);
        assert_eq!(texts(&axis), ["0%", "50%", "75%", "90%", "99%", "99.9%"]);
        assert!((axis.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert!((axis.place(100.0) - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_plot_shows_its_lines_and_escapes_names() {
        let line =
            Line { name: "a<b".into(), colour: 0, dashed: false, points: vec![(0.0, 0.0), (10.0, 5.0)] };
        let band = Band { name: "calm & quiet".into(), from: 0.0, to: 10.0, strong: true };
        let plot =
            Plot { x: Axis::time(10.0), y: Axis::linear("y", 5.0), lines: vec![line], bands: vec![band] };
        let html = plot.html();
        assert!(html.contains("a&lt;b") && html.contains("calm &amp; quiet"), "{html}");
        assert!(html.contains("d=\"M78.0 276.0L888.0 22.0\""), "from corner to corner: {html}");
    }
}
