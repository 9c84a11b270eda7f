-- Leases on what is first: {queue whose turn it was, id, row, envelope, content, id, …}.
-- args.served are in the order of their turns; see outbox.stores.selection for the rules.

local function promote(queue, most)
  local lane = LANE[queue]
  local ids = redis.call('ZRANGEBYSCORE', lane.scheduled, '-inf', now, 'LIMIT', 0, most)
  if #ids == 0 then return end
  for place, text in ipairs(fetch(ROW, ids)) do
    local id = ids[place]
    local row = read_of(text, queue)
    write('ZREM', lane.scheduled, id)
    if row and (row.state == 'claimed' or row.lost > 0) then
      write('ZADD', lane.suspects, '0', place_of(id, row))
    elseif row then
      write('ZADD', lane.ready, '0', place_of(id, row))
    else
      set_aside(id, text, queue)
    end
  end
  flush()
end

local function offer(queue, limit)
  local lane = LANE[queue]
  local found = {
    queue = queue, at = 1,
    ready = redis.call('ZRANGE', lane.ready, 0, limit - 1),
    suspect = redis.call('ZRANGE', lane.suspects, 0, 0)[1],
  }
  local ids = {}
  for place, key in ipairs(found.ready) do ids[place] = id_of(key) end
  found.rows = fetch(ROW, ids)
  return found
end

local function take(claims, queue, place, text, till)
  local id, row = id_of(place), read_of(text, queue)
  if not row then
    set_aside(id, text, queue)
    return nil
  end
  claims[#claims + 1] = { id, lease(id, row, till, args.nonce) }
  return row
end

local function deal(offers, limit, room, till)
  local claims, hands = {}, {}
  for _, each in ipairs(offers) do hands[#hands + 1] = each end
  while #hands > 0 and #claims < limit do
    local hand = table.remove(hands, 1)
    local place, text = hand.ready[hand.at], hand.rows[hand.at]
    -- A queue whose next message does not fit waits: what is behind it must not pass it by.
    local size = text and tonumber(string.match(text, '^[^\t]*\t[^\t]*\t(%d+)\t')) or 0
    if place and (#claims == 0 or size <= room) then
      write('ZREM', LANE[hand.queue].ready, place)
      if take(claims, hand.queue, place, text, till) then room = room - size end
      hand.at = hand.at + 1
      hands[#hands + 1] = hand
    end
  end
  return claims
end

local function claim()
  local queues, offers = served(args.served), {}
  local share = math.max(1, math.floor(args.promoted / math.max(1, #queues)))
  for _, queue in ipairs(queues) do
    promote(queue, share)
    local found = offer(queue, args.limit)
    if #found.ready > 0 or found.suspect then offers[#offers + 1] = found end
  end
  local first, till, claims = offers[1], later(args.lease), nil
  if not first or args.limit < 1 then
    note_load()
    return { '' }
  end
  if first.suspect and (#first.ready == 0 or first.suspect < first.ready[1]) then
    claims = {}
    write('ZREM', LANE[first.queue].suspects, first.suspect)
    take(claims, first.queue, first.suspect, redis.call('HGET', ROW, id_of(first.suspect)), till)
  else
    claims = deal(offers, args.limit, args.max_bytes, till)
  end
  flush()
  note_load()
  local ids = {}
  for place, each in ipairs(claims) do ids[place] = each[1] end
  local envelopes, contents, found = fetch(ENVELOPE, ids), fetch(CONTENT, ids), { first.queue }
  for place, each in ipairs(claims) do
    found[#found + 1] = each[1]
    found[#found + 1] = each[2]
    found[#found + 1] = envelopes[place]
    found[#found + 1] = contents[place]
  end
  return found
end
