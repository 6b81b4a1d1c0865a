"""One local page over the log: `quantum ui`.

It shows what the commands print, by the same functions, and nothing of its own: cells of `quantum verify`, standing of
`quantum status`, stories of `quantum why`, courses and differences of `quantum policy`, dead letters of `quantum dlq`.
`looking` follows the log while somebody watches, `judging` runs verify in a process of its own, `answers` does what is
asked for once, `guard` says who may ask, `hub` hands on what is new, `serve` puts it on a socket. `static` is the page:
plain HTML, CSS and JavaScript, served from the package; it needs no network but this server.
"""
