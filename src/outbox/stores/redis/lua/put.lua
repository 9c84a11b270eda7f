-- Messages into the store, all or none: {"conflict", id, digest, …}, {"full", messages, bytes} or
-- {"stored", now, news, {id, digest of those known}, {id, row of those claimed}}.

local drafts = args.drafts
local ids = {}
for place, draft in ipairs(drafts) do ids[place] = draft[1] end

local known, conflicts, fresh, forgotten, unlisted = {}, {}, {}, {}, {}
local new_messages, new_bytes = 0, 0
local since = NOW - tonumber(args.remember)
for place, text in ipairs(fetch(ROW, ids)) do
  local id, _, _, size, digest = unpack(drafts[place])
  local was = nil
  if text and is_gone(text) then
    local buried, settled = string.match(text, '^\t(%x*)\t(%d+)')
    if not settled or #buried % 2 == 1 then
      was = ''
    elseif tonumber(settled) > since then
      was = buried
    else
      forgotten[#forgotten + 1] = id
    end
  elseif text then
    local row = parse(text)
    was = row and row.digest or ''
    if not redis.call('ZSCORE', IDS, id) then
      -- No list shows it: the rest of a put that was stopped in its midst.
      unlisted[#unlisted + 1] = { id, row }
      if row and row.state == 'queued' and was == digest then was = nil end
    end
  end
  if was == nil then
    fresh[#fresh + 1] = place
    new_messages, new_bytes = new_messages + 1, new_bytes + size
  else
    known[#known + 1] = id
    known[#known + 1] = was
    if was ~= digest then
      conflicts[#conflicts + 1] = id
      conflicts[#conflicts + 1] = was
    end
  end
end
if #conflicts > 0 then return { 'conflict', unpack(conflicts, 1, math.min(#conflicts, 1000)) } end

local full = too_full(new_messages, new_bytes)
if full then return full end

if not format then redis.call('HSET', META, 'format', '1') end
local claims, going_on = {}, {}
if args.lease then
  for _, queue in ipairs(args.attempted and args.queues or served(args.queues)) do going_on[queue] = true end
end
for _, each in ipairs(unlisted) do
  local id, row = unpack(each)
  write('ZADD', IDS, '0', id)
  local lane = row and LANE[row.queue]
  if lane and row.state == 'claimed' then
    write('ZADD', lane.scheduled, row.due, id)
  elseif lane and row.state == 'queued' then
    write('ZREM', lane.scheduled, id)
    write('ZREM', lane.ready, place_of(id, row))
    write('ZREM', lane.suspects, place_of(id, row))
  end
end
flush()
for _, place in ipairs(fresh) do
  local id, queue, priority, size, digest, fates, not_before = unpack(drafts[place])
  local due = now
  if not_before ~= '' and tonumber(not_before) > NOW then due = not_before end
  local row = {
    queue = queue, priority = priority, size = size, digest = digest, generation = 0, nonce = '',
    state = 'queued', fates = fates, due = due, since = due, submitted = now, settled = '', attempts = 0,
    lost = 0, resumes = '', reason = '',
  }
  write('ZADD', IDS, '0', id)
  write('HSET', ENVELOPE, id, ARGV[2 * place])
  write('HSET', CONTENT, id, ARGV[2 * place + 1])
  if going_on[queue] and due == now then
    weigh(1, row)
    claims[#claims + 1] = id
    claims[#claims + 1] = lease(id, row, later(args.lease), args.nonce)
  else
    write('HSET', ROW, id, render(row))
    attach(id, row)
  end
end
if #fresh > 0 then
  -- Also one that is empty by now: who counts looks whether it is.
  for _, queue in ipairs(args.queues) do write('HSET', META, 'queue:' .. queue, '1') end
end
-- Behind all that asks for memory: who writes at all is let go on.
for _, id in ipairs(forgotten) do write('ZREM', GONE, id) end
if not pcall(flush, call) then
  -- None of it, then.
  pending, gathered = {}, {}
  if not wrote then return met end
  for _, id in ipairs(forgotten) do write('ZREM', GONE, id) end
  for _, place in ipairs(fresh) do
    local id, queue, priority, _, _, _, not_before = unpack(drafts[place])
    local due = not_before ~= '' and tonumber(not_before) > NOW and not_before or now
    for _, key in ipairs({ ROW, ENVELOPE, CONTENT }) do write('HDEL', key, id) end
    write('ZREM', IDS, id)
    write('ZREM', LANE[queue].scheduled, id)
    write('ZREM', LANE[queue].ready, place_of(id, { priority = priority, due = due }))
  end
  flush(redis.pcall)
  return met
end
note_load()
return { 'stored', now, #fresh > 0 and tell() or '', known, claims }
