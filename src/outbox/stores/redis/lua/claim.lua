go_on_when_full()
return { now, latest(), {}, claim() }
