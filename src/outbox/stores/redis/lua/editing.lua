-- Rows that a command, their age or a move has changed, each only where it is still what was read: changes are {id, row from
-- now on or "", whether its id is remembered, as what}, and the rows as read stand in ARGV behind the place *before*.
-- Answers the places (from 0) of the rest, and whether something came back into a queue.
local function edit(changes, before)
  local changed, ids, news = {}, {}, false
  for place, each in ipairs(changes) do ids[place] = each[1] end
  for place, text in ipairs(fetch(ROW, ids)) do
    local id, new, buried, left = unpack(changes[place])
    local read = ARGV[before + place]
    if text ~= read then
      changed[#changed + 1] = place - 1
    else
      local row = parse(read)
      detach(id, row)
      if new == '' then
        discard(id, row, buried, left)
      else
        row = parse(new)
        write('HSET', ROW, id, new)
        attach(id, row)
        news = news or queued(row)
      end
    end
  end
  return changed, news
end
