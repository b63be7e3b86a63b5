//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use crate::bars::escape;
use crate::content::{Block, Report};

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>ComSIPL: {title}</title><style>{STYLE}</style><main><h1>{title}</h1>\n",
        title = escape(&report.title)
    );
    for block in &report.blocks {
        match block {
            Block::Heading(heading) => {
                let _ = writeln!(out, "<h2 id=\"{}\">{}</h2>", anchor(heading), inline(heading));
            }
            Block::Text(text) => {
                let _ = writeln!(out, "<p>{}</p>", inline(text));
            }
            Block::List(items) => {
                out.push_str("<ul>");
                for item in items {
                    let _ = write!(out, "<li>{}</li>", inline(item));
                }
                out.push_str("</ul>\n");
            }
            Block::Table(table) => {
                let cells = |cells: &[String], tag: &str| {
                    cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", inline(cell))).collect::<String>()
                };
                let _ = write!(out, "<div class=wide><table><tr>{}</tr>", cells(&table.head, "th"));
                for row in &table.rows {
                    let _ = write!(out, "<tr>{}</tr>", cells(row, "td"));
                }
                out.push_str("</table></div>\n");
            }
            Block::Picture(picture) => {
                let _ = writeln!(out, "<figure>{}</figure>", picture.bars.svg());
            }
        }
    }
    out.push_str("</main></html>\n");
    out
}

/// Where a link to a heading leads, as Markdown's readers make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// A line of Markdown: `code`, **strong** and [links](to).
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        out.push_str(&escape(&rest[..at]));
        let (mark, tail) = (&rest[at..=at], &rest[at + 1..]);
        let piece = match mark {
            "`" => tail.split_once('`').map(|(code, tail)| (format!("<code>{}</code>", escape(code)), tail)),
            "*" => tail
                .strip_prefix('*')
                .and_then(|tail| tail.split_once("**"))
                .map(|(strong, tail)| (format!("<b>{}</b>", inline(strong)), tail)),
            _ => tail.split_once("](").and_then(|(words, tail)| {
                let (to, tail) = tail.split_once(')')?;
                Some((format!("<a href=\"{}\">{}</a>", escape(to), inline(words)), tail))
            }),
        };
        if let Some((html, tail)) = piece {
            out.push_str(&html);
            rest = tail;
        } else {
            out.push_str(mark);
            rest = tail;
        }
    }
    out.push_str(&escape(rest));
    out
}

const STYLE: &str = "\
:root{--ground:#fff;--ink:#1c2330;--soft:#5c6675;--rule:#e3e7ed;--tint:#f4f6f9;--link:#2563eb}\
@media(prefers-color-scheme:dark){:root{--ground:#12161d;--ink:#e6eaf0;--soft:#98a3b3;--rule:#2a323e;--tint:#1a2029;--link:#60a5fa}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--ground);color:var(--ink);\
font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
main{max-width:1060px;margin:0 auto;padding:28px 20px 60px}h1{font-size:28px;margin:0 0 8px}\
h2{font-size:19px;margin:38px 0 6px}p,ul{margin:8px 0}li{margin:3px 0}a{color:var(--link)}\
code{background:var(--tint);padding:1px 5px;border-radius:4px;font-size:13px}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums;margin:10px 0}\
th,td{padding:5px 9px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap;font-weight:400}\
th{color:var(--soft)}th:first-child,td:first-child{text-align:left}figure{margin:14px 0}svg{width:100%;height:auto;display:block}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_elements_and_the_rest_is_escaped() {
        assert_eq!(inline("`a<b` **c** [d](#e) *f"), "<code>a&lt;b</code> <b>c</b> <a href=\"#e\">d</a> *f");
        assert_eq!(anchor("What was not right"), "what-was-not-right");
    }
}
