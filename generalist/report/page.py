"""The page around a report: its style and its skeleton. Nothing in it is fetched from elsewhere."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1d2228;--soft:#5e6874;--rule:#e3e6ea;--accent:#2b6cd4;
--warm:#f0701a;--good:#1d8a5f;--near:#b7791f;--bad:#c2414f;--none:#7b8794;--fill:.28}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--card:#1c2026;--ink:#e7eaee;--soft:#9aa5b1;--rule:#2e353d;
--accent:#6ea8ff;--good:#4cc796;--near:#e0ab4d;--bad:#f0808a;--none:#8a96a3;--fill:.38}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.8rem 0 .5rem}
h3{font-size:1rem;margin:1.8rem 0 .6rem;overflow-wrap:anywhere}
p{margin:.4rem 0;max-width:74ch}
a{color:var(--accent)}
.lead{color:var(--soft)}
.note,figcaption{color:var(--soft);font-size:.85rem}
figcaption b,.note b{color:var(--ink);font-weight:600}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--rule);border-radius:4px;
padding:.05em .35em}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:1rem 0 0;font-size:.9rem}
nav a{text-decoration:none}
.facts{display:flex;flex-wrap:wrap;gap:1px;margin:1.4rem 0 0;
background:var(--rule);border:1px solid var(--rule);border-radius:10px;overflow:hidden}
.facts div{flex:1 1 130px;background:var(--card);padding:12px 16px}
.facts dt{color:var(--soft);font-size:.8rem}
.facts dd{margin:0;font-size:1.2rem;font-weight:600;overflow-wrap:anywhere;line-height:1.3}
.verdict{border-left:3px solid var(--accent);padding:.1rem 0 .1rem 14px;margin:.8rem 0 1.2rem}
.verdict p{margin:.25rem 0}
.card,.facts,.results{box-shadow:0 1px 2px rgb(0 0 0/.04)}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:14px}
.missing{border-style:dashed;color:var(--soft)}
.missing p{margin:0}
figure{margin:0;min-width:0}
svg,img{display:block;max-width:100%}
svg{width:100%;height:auto}
svg text{font:10px system-ui,sans-serif;fill:var(--soft)}
details summary{cursor:pointer;color:var(--accent);font-size:.9rem}
table{border-collapse:collapse;width:100%}
.recipe{columns:2;column-gap:32px;margin:0 0 .4rem;padding:0;list-style:none;font-size:.85rem}
.recipe li{display:flex;justify-content:space-between;gap:12px;border-bottom:1px solid var(--rule);padding:3px 0;
break-inside:avoid}
.recipe span{color:var(--soft);overflow-wrap:anywhere}
.recipe b{font-weight:500;text-align:right;overflow-wrap:anywhere;min-width:25%}

.results{background:var(--card);border:1px solid var(--rule);border-radius:10px;overflow:hidden}
.results table{font-variant-numeric:tabular-nums}
.results th{font-weight:500;color:var(--soft);font-size:.8rem;text-align:right;padding:10px 10px 6px;
white-space:nowrap}
.results td{border-top:1px solid var(--rule);padding:10px;text-align:right;vertical-align:middle}
.results th:first-child,.results td:first-child{text-align:left;padding-left:16px}
.results th:nth-child(2){text-align:left}
.results td:nth-child(2){width:28%;min-width:150px}
.results td:last-child,.results th:last-child{padding-right:16px}
.results .name{font-weight:600;overflow-wrap:anywhere}
.results small{display:block;color:var(--soft);font-size:.78rem;line-height:1.35}
.results .value{font-weight:600}
.results .range-words{white-space:nowrap}
.chip{display:inline-block;border-radius:99px;font-size:.75rem;font-weight:600;padding:.1em .7em;white-space:nowrap;
color:var(--c);background:color-mix(in srgb,var(--c) 13%,transparent)}
.good{--c:var(--good)}.near{--c:var(--near)}.bad{--c:var(--bad)}.none{--c:var(--none)}
.tag{display:inline-block;border:1px solid currentColor;border-radius:4px;color:var(--soft);font-size:.68rem;
font-weight:500;padding:0 .4em;margin-left:.4em;vertical-align:2px;white-space:nowrap}
.scale{position:relative;height:22px}
.scale::before{content:"";position:absolute;left:0;right:0;top:10px;height:2px;background:var(--rule)}
.scale b{position:absolute;display:block}
.scale .fill{top:6px;height:10px;border-radius:2px;background:var(--c);opacity:var(--fill)}
.scale .range{top:10px;height:2px;background:var(--ink);opacity:.55}
.scale .tick{top:1px;height:20px;width:2px;margin-left:-1px}
.chance{background:var(--none)}
.baseline{background:var(--ink)}
.scale .dot{width:10px;height:10px;top:6px;margin-left:-5px;border-radius:50%;background:var(--c);
box-shadow:0 0 0 2px var(--card)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem .9rem;margin:.5rem 0 0;padding:0;font-size:.8rem;
color:var(--soft)}
.legend i{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:.4em}
.legend i.chance,.legend i.baseline{width:2px;height:13px;border-radius:0;vertical-align:-2px}
.legend i.dot{background:var(--accent)}
.legend i.range{background:var(--ink);opacity:.55;height:2px;width:16px;border-radius:0;vertical-align:4px}
.results .legend{margin:0;padding:10px 16px;border-top:1px solid var(--rule)}

.grid3{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(290px,100%),1fr));gap:14px;margin-top:1rem}
.grid3 h4{margin:0 0 .3rem;font-size:.92rem;overflow-wrap:anywhere}
.chart .grid{stroke:var(--rule);stroke-width:1}
.chart path{fill:none}
.chart .raw{opacity:.3;stroke-width:1;stroke-linejoin:round}
.chart .line{stroke-width:2;stroke-linejoin:round}
.map circle{r:var(--r);opacity:.72}
.wide{margin-top:1rem;display:grid;grid-template-columns:minmax(0,1fr) 250px;gap:8px 24px;align-items:center}
.wide .legend{display:grid;grid-template-columns:1fr;font-size:.88rem;margin:0}
figcaption{margin-top:.5rem}

.grid2{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr));gap:14px;margin-top:1rem}
.card h4{margin:0 0 .4rem;font-size:.95rem;overflow-wrap:anywhere}
.chart .chanceline{stroke:var(--none);stroke-dasharray:2 4}
.heat .cell{fill:var(--accent);stroke:var(--accent);stroke-width:1.5}
.heat .below{fill:var(--bad);stroke:var(--bad)}
.heat .number{fill:var(--ink);font-size:12px}
.plain{overflow-x:auto;font-size:.88rem;font-variant-numeric:tabular-nums}
.plain th{font-weight:500;color:var(--soft);text-align:right;padding:3px 10px;white-space:nowrap}
.plain td{border-top:1px solid var(--rule);text-align:right;padding:4px 10px;white-space:nowrap}
.plain th:first-child,.plain td:first-child{text-align:left;padding-left:0}
.plain small{display:block;color:var(--soft);font-size:.76rem}
.confusion td{text-align:center;padding:4px 8px;min-width:2.2em;
background:color-mix(in srgb,var(--c,transparent) var(--d,0%),transparent)}
.confusion th{text-align:center}
.confusion th:first-child,.confusion td:first-child{position:sticky;left:0;background:var(--card)}
.near-row{display:grid;grid-template-columns:minmax(0,300px) minmax(0,1fr);gap:14px;margin-top:14px;align-items:start}
.near-row .near-list{display:flex;gap:12px;overflow-x:auto}
.near-list figure{margin:0;flex:1 0 112px;min-width:0}
.near-list figure:has(.rows,svg,blockquote,pre){flex-basis:210px}
.near-list .rows th{overflow-wrap:anywhere}
.near-list .rows td{white-space:nowrap}
.near-list img.pixels{max-width:100%;height:auto;min-height:96px;width:128px;display:block}
.near-list figcaption{font-size:.8rem;color:var(--soft);overflow-wrap:anywhere}
.near-list b{color:var(--ink)}
@media(max-width:760px){.near-row{grid-template-columns:minmax(0,1fr)}}

.heat-cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(320px,100%),1fr));gap:14px;margin-top:14px}
.heats{display:flex;flex-wrap:wrap;gap:12px}
.heats figure{flex:1 1 128px;min-width:0}
.heats figure:has(.rows,svg,.warmed){flex-basis:100%}
img.heated{image-rendering:pixelated;width:100%;max-width:300px;max-height:170px;object-fit:contain;object-position:left}
svg .warm{fill:var(--warm)}
.warmed{display:flex;flex-wrap:wrap;gap:3px;font-size:.92rem;max-height:220px;overflow:auto}
.warmed span{padding:0 .25em;border-radius:3px;background:color-mix(in srgb,var(--warm) calc(var(--d)*.7),transparent)}
.rings th,.rings td{padding:3px 5px}
.plain .warmed-cell{background:color-mix(in srgb,var(--warm) calc(var(--d)*.7),transparent)}
.rows .warmth{min-width:88px;font-variant-numeric:tabular-nums}
.rows .warmth i{display:inline-block;height:8px;border-radius:2px;width:calc(50px*var(--w));
margin-right:6px;background:var(--warm)}

.answers{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:14px}
.answer{display:flex;flex-direction:column;gap:10px;min-width:0}
.answer header{display:flex;justify-content:space-between;gap:8px;font-size:.78rem;color:var(--soft);
overflow-wrap:anywhere}
.answer .shown{min-height:96px;display:flex;flex-direction:column;justify-content:center}
.in{margin:0}
img.pixels{image-rendering:pixelated;height:128px;width:auto;min-width:64px;object-fit:contain;margin:0 auto;
border-radius:4px}
blockquote.in{border-left:3px solid var(--rule);padding-left:12px;overflow-wrap:anywhere;font-size:.92rem;
max-height:180px;overflow:auto}
pre.in{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.78rem;max-height:160px;overflow:auto}
.rows{max-height:180px;overflow:auto;font-size:.8rem}
.rows th{text-align:left;font-weight:400;color:var(--soft);padding:1px 10px 1px 0}
.rows td{text-align:right;padding:1px 4px;overflow-wrap:anywhere}
svg.cloud{max-width:190px;margin:0 auto}
.cloud circle,.wave{fill:var(--accent)}
.series path{fill:none;stroke-width:1.6;stroke-linejoin:round}
.series .past{stroke:var(--soft)}
.series .future{stroke:var(--ink);stroke-dasharray:4 3}
.series .median{stroke:var(--accent);stroke-width:2}
.series .now{stroke:var(--rule)}
.series .band{fill:var(--accent);opacity:.18;stroke:none}
.key i{height:2px;width:14px;border-radius:0;vertical-align:4px}
.key .past{background:var(--soft)}.key .future{background:var(--ink)}.key .median{background:var(--accent)}
.key .band{background:var(--accent);opacity:.3;height:9px;vertical-align:-1px}
.truth{margin:0;font-size:.88rem;overflow-wrap:anywhere}
.truth span{color:var(--soft)}
.bars{list-style:none;margin:0;padding:0;font-size:.85rem}
.bars li{display:grid;grid-template-columns:1fr 3.2em;gap:0 8px;align-items:baseline;padding:2px 0}
.bars span{overflow-wrap:anywhere;line-height:1.25}
.bars em{font-style:normal;text-align:right;font-variant-numeric:tabular-nums;color:var(--soft)}
.bars i{grid-column:1/-1;height:5px;border-radius:3px;background:var(--rule);overflow:hidden;margin-top:2px}
.bars i b{display:block;height:100%;background:var(--none);border-radius:3px}
.bars .true span{font-weight:600}
.bars .true i b{background:var(--good)}
.bars .first:not(.true) i b{background:var(--bad)}
.bars.open .first i b{background:var(--accent)}
footer{margin-top:3rem;border-top:1px solid var(--rule);padding-top:.8rem}
@media(max-width:760px){
main{padding:22px 14px 48px}
h1{font-size:1.5rem}
.recipe{columns:1}
.wide{grid-template-columns:minmax(0,1fr)}
.wide .legend{grid-template-columns:1fr 1fr}
.results thead{display:none}
.results tr{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:6px 10px;padding:12px 14px;
border-top:1px solid var(--rule)}
.results tbody tr:first-child{border-top:0}
.results td{border:0;padding:0!important;text-align:left}
.results td:nth-child(1){grid-column:1/4;grid-row:1}
.results td:last-child{grid-column:4;grid-row:1;text-align:right;justify-self:end}
.results td:nth-child(2){grid-column:1/-1;width:auto}
.results td[data-label]::before{content:attr(data-label);display:block;color:var(--soft);font-size:.72rem}
}
@media print{.card,.facts,.results{break-inside:avoid;box-shadow:none}}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""


def page(title: str, body: str) -> str:
    """The whole document; both arguments are HTML, escaped already."""
    return PAGE.format(title=title, style=STYLE, body=body)
