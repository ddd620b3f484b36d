package report

// chartStyle is the style sheet of pages with charts, for a light and a dark
// ground: ten colours of lines (c0…), of which people who see red and green alike
// tell the first eight apart, and ten of the steps of a ramp (r0…).
const chartStyle = `
:root { color-scheme: light dark; --back: #ffffff; --text: #1a1e23; --soft: #59636e; --rule: #dfe3e8; --fine: #eef0f3; --card: #ffffff; --shade: #f3f5f7; --bad: #b3261e;
  --c0: #2563c9; --c1: #d9730d; --c2: #0f8a6c; --c3: #b0307f; --c4: #7a5cd6; --c5: #8a6d00; --c6: #2b8ab5; --c7: #5c6570; --c8: #a4432a; --c9: #4f7a1f;
  --r0: #1b1091; --r1: #3f0a9c; --r2: #6204a6; --r3: #8408a6; --r4: #a31c99; --r5: #be3385; --r6: #d44a72; --r7: #e5625f; --r8: #f0763f; --r9: #f0962a; }
@media (prefers-color-scheme: dark) { :root { --back: #111418; --text: #e8ebee; --soft: #9aa5b1; --rule: #2f363e; --fine: #20262c; --card: #171b20; --shade: #1d2228; --bad: #ff8a80;
  --c0: #6ea8ff; --c1: #ffa657; --c2: #4fd1a5; --c3: #f178b6; --c4: #b79cff; --c5: #e3c341; --c6: #7cc7e8; --c7: #a3adb8; --c8: #ff8f70; --c9: #a5d46a;
  --r0: #6f7dff; --r1: #8a6cf5; --r2: #a75fe6; --r3: #c258d0; --r4: #d85ab5; --r5: #ea6398; --r6: #f4757c; --r7: #fa8d66; --r8: #fcaa5c; --r9: #f9ca62; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 56rem; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .2rem; text-wrap: balance; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; }
p, ul { margin: .35rem 0; }
.soft { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: .75rem; margin: 1.4rem 0 .9rem; padding: 0; list-style: none; }
.tiles li { padding: .7rem .9rem .75rem; border: 1px solid var(--rule); border-radius: 10px; background: var(--card); }
.tiles b { display: block; font-size: 1.55rem; line-height: 1.3; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles b.bad { color: var(--bad); }
.tiles span, .tiles small { display: block; font-size: .82rem; line-height: 1.35; }
.tiles small { color: var(--soft); }
.cards { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.1rem; margin: 1.4rem 0 0; }
.card { margin: 0; padding: .9rem 1rem; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; min-width: 0; }
.card h2 { margin: 0 0 .55rem; }
.details p { margin: .45rem 0; overflow-wrap: anywhere; }
.details b { font-weight: 600; }
@media (min-width: 64rem) { .tiles { grid-template-columns: repeat(6, 1fr); } }
@media (min-width: 80rem) { body { max-width: 92rem; } .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); } .details:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .three { grid-template-columns: repeat(3, minmax(0, 1fr)); } .three .wide { display: none; } .three .narrow { display: block; } .three .details { grid-column: 1 / -1; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
.scroll table { width: 100%; }
th, td { padding: .32rem .6rem; text-align: right; white-space: nowrap; }
.scroll th, .scroll td { border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
.scroll th:first-child, .scroll td:first-child { position: sticky; left: 0; background: var(--back); padding-left: 0; }
th { color: var(--soft); font-weight: 600; font-size: .78rem; }
.chart { display: block; width: 100%; height: auto; overflow: visible; font: 13px system-ui, sans-serif; margin-top: .5rem; }
.narrow { display: none; }
@media (max-width: 36rem) { body { padding: 1.25rem .75rem 3rem; } .wide { display: none; } .narrow { display: block; } .card { padding: .75rem .7rem; } .tiles { grid-template-columns: 1fr 1fr; gap: .5rem; } }
.grid { stroke: var(--rule); stroke-width: 1; }
.base { stroke: var(--soft); stroke-width: 1; }
.fine { stroke: var(--fine); stroke-width: 1; fill: none; }
.guide { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.shade { fill: var(--shade); }
.tick { fill: var(--soft); }
.over { paint-order: stroke; stroke: var(--shade); stroke-width: 5px; stroke-linejoin: round; }
.label { fill: var(--text); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.area { stroke: none; opacity: .1; }
p.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .85rem; margin: 0; }
table.legend td, table.legend th { padding: .05rem 0 .05rem 1.4rem; }
table.legend td:first-child { padding-left: 0; }
@media (max-width: 36rem) { table.legend { font-size: .8rem; } table.legend td, table.legend th { padding-left: .7rem; } table.legend td:first-child { white-space: normal; }
  .scroll td span { display: inline-block; width: max-content; max-width: 42vw; white-space: normal; } }
.legend i { display: inline-block; width: 14px; height: 3px; margin: 0 .45rem .2rem 0; border-radius: 2px; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); } .c8 { --c: var(--c8); } .c9 { --c: var(--c9); }
.r0 { --c: var(--r0); } .r1 { --c: var(--r1); } .r2 { --c: var(--r2); } .r3 { --c: var(--r3); } .r4 { --c: var(--r4); } .r5 { --c: var(--r5); } .r6 { --c: var(--r6); } .r7 { --c: var(--r7); } .r8 { --c: var(--r8); } .r9 { --c: var(--r9); }
.line { stroke: var(--c); } .dot, .area { fill: var(--c); } i { background: var(--c); }
`
