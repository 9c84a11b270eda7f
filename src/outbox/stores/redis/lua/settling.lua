-- Verdicts into rows; the places (from 0) of those whose token was stale.

local function settle(settlements)
  local ids = {}
  for place, each in ipairs(settlements) do ids[place] = each[1] end
  local texts, seen, stale, returned = fetch(ROW, ids), {}, {}, false
  for place, each in ipairs(settlements) do
    local id, token, state, fates, delay, refunded, reason, attempt, dialogue, redacted = unpack(each)
    local row = texts[place] and not is_gone(texts[place]) and not seen[id] and parse(texts[place]) or nil
    if not row or not LANE[row.queue] or row.state ~= 'claimed' or string.format('%.0f', row.generation) .. '-' .. row.nonce ~= token then
      stale[#stale + 1] = place - 1
    else
      seen[id] = true
      detach(id, row)
      if state == 'delivered' and not args.keep then
        discard(id, row, args.remembers)
      else
        local goes_on = state == 'queued'
        row.state, row.fates, row.reason = state, fates, reason
        row.due = goes_on and later(delay) or now
        row.settled = goes_on and '' or now
        if refunded then row.attempts = math.max(0, row.attempts - 1) else row.lost = 0 end
        write('HSET', ROW, id, render(row))
        attach(id, row)
        if attempt ~= '' then
          local past = redis.call('HGET', PAST, id)
          local line = now .. '\t' .. attempt
          write('HSET', PAST, id, past and past .. '\n' .. line or line)
          if dialogue ~= '' then
            local _, before = string.gsub(past or '', '\n', '\n')
            write('HSET', PAST, id .. '!', (past and before + 1 or 0) .. '\t' .. dialogue)
          end
        end
        if redacted ~= '' then
          write('HSET', ENVELOPE, id, redacted)
          write('HSET', CONTENT, id, '')
        end
        returned = returned or goes_on
      end
    end
  end
  flush()
  note_load()
  return stale, returned and tell() or ''
end
