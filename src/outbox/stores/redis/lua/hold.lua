-- Rows that could not be read, each only where it is still what was read (what follows the arguments): held, with what
-- of them can be.
go_on_when_full()
for place, text in ipairs(fetch(ROW, args.ids)) do
  local id = args.ids[place]
  if text and text == ARGV[place + 1] then
    local row, was, settled = salvaged(text), parse(text), false
    for _, key in pairs(DONE) do
      if redis.call('ZSCORE', key, id) then
        settled = true
        write('ZREM', key, id)
      end
    end
    local lane = LANE[row.queue]
    if lane then
      write('ZREM', lane.scheduled, id)
      if was then
        write('ZREM', lane.ready, place_of(id, was))
        write('ZREM', lane.suspects, place_of(id, was))
      end
    end
    if not settled then weigh(-1, row) end
    write('HSET', ROW, id, render(row))
    write('ZADD', IDS, '0', id)
    write('ZADD', DONE.held, now, id)
  end
end
flush()
note_load()
return { now }
