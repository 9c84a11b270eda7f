-- What all scripts share: the keys, the clock, rows, and where a row stands in the sorted sets.
-- KEYS are always the fixed ones, then three for each queue of args.queues; ARGV[1] is JSON, what follows is bytes.

local ROW, ENVELOPE, CONTENT, PAST, IDS, GONE, META, STOPPED, NEWS =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local DONE = {
  delivered = KEYS[10], dead = KEYS[11], held = KEYS[12], expired = KEYS[13], cancelled = KEYS[14],
}
local FIXED = 14
local args = cjson.decode(ARGV[1])

local LANE = {}
for place, queue in ipairs(args.queues or {}) do
  local first = FIXED + 3 * (place - 1)
  LANE[queue] = { scheduled = KEYS[first + 1], ready = KEYS[first + 2], suspects = KEYS[first + 3] }
end

-- Instants are whole microseconds in decimal: the last one that there is has more digits than a double keeps.
local now = args.now
if now == '' then
  local told = redis.call('TIME')
  now = told[1] .. string.format('%06d', tonumber(told[2]))
end
local NOW = tonumber(now)
local FOREVER, LAST = '253402300799999999', 253402300799

local function split(instant)
  if #instant <= 6 then return 0, tonumber(instant) end
  return tonumber(string.sub(instant, 1, -7)), tonumber(string.sub(instant, -6))
end

local function later(delay)
  local seconds, micros = split(now)
  local more, rest = split(delay)
  seconds, micros = seconds + more, micros + rest
  if micros >= 1000000 then seconds, micros = seconds + 1, micros - 1000000 end
  if seconds > LAST then return FOREVER end
  if seconds == 0 then return string.format('%.0f', micros) end
  return string.format('%.0f%06d', seconds, micros)
end

-- Writes are gathered, and each command is called once for a key and many members.
local pending, gathered = {}, {}

local function write(command, key, first, second)
  local of_key = pending[key]
  if not of_key then
    of_key = {}
    pending[key] = of_key
  end
  local list = of_key[command]
  if not list then
    list = { command = command, key = key, n = 0 }
    of_key[command] = list
    gathered[#gathered + 1] = list
  end
  local n = list.n + 1
  list[n] = first
  if second then
    n = n + 1
    list[n] = second
  end
  list.n = n
end

-- As redis.call; what it has met a script can answer with as it is.
local met, wrote = nil, false
local function call(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then
    met = said
    error(said)
  end
  wrote = true
  return said
end

local function flush(how)
  for _, list in ipairs(gathered) do
    for first = 1, list.n, 1000 do
      (how or redis.call)(list.command, list.key, unpack(list, first, math.min(first + 999, list.n)))
    end
  end
  pending, gathered = {}, {}
end

-- Before anything else: a server that is out of memory lets a script go on that has written already, and what is
-- settled frees memory.
local function go_on_when_full()
  redis.call('HDEL', META, '')
end

local function fetch(key, ids)
  local found = {}
  for first = 1, #ids, 1000 do
    local last = math.min(first + 999, #ids)
    for place, value in ipairs(redis.call('HMGET', key, unpack(ids, first, last))) do
      found[first + place - 1] = value
    end
  end
  return found
end

-- Held to the last detail: outbox.stores.redis.rows reads the same rows, and no others.
local PATTERN = '^([a-z0-9._-]+)\t(-?%d%d?%d?)\t(%d+)\t(%x*)\t(%d+)\t(%x*)\t(%l+)\t([wdafu]*)\t(-?%d+)\t(-?%d+)\t(-?%d+)'
  .. '\t(-?%d*)\t(%d+)\t(%d+)\t(-?%d*)\t(.*)$'
-- More digits a number loses on its way into a text.
local DIGITS = 14
local EARLIEST = '-62135596800000000'

local function instant(text)
  local size = #text
  if size < 17 then return text ~= '-' end
  if string.sub(text, 1, 1) == '-' then return size == 17 or size == 18 and text <= EARLIEST end
  return size == 17 or size == 18 and text <= FOREVER
end

local function parse(text)
  local queue, priority, size, digest, generation, nonce, state, fates, due, since, submitted, settled, attempts,
    lost, resumes, reason = string.match(text, PATTERN)
  if not queue or not (state == 'queued' or state == 'claimed' or DONE[state]) or #queue > 64 or #digest % 2 == 1
    or #size > DIGITS or #generation > DIGITS or #attempts > DIGITS or #lost > DIGITS
    or tonumber(priority) < -100 or tonumber(priority) > 100
    or (settled == '') ~= (DONE[state] == nil)
    or not (instant(due) and instant(since) and instant(submitted) and instant(settled) and instant(resumes)) then
    return nil
  end
  return {
    queue = queue, priority = tonumber(priority), size = tonumber(size), digest = digest,
    generation = tonumber(generation), nonce = nonce, state = state, fates = fates, due = due, since = since,
    submitted = submitted, settled = settled, attempts = tonumber(attempts), lost = tonumber(lost),
    resumes = resumes, reason = reason,
  }
end

local function render(row)
  return table.concat({
    row.queue, row.priority, row.size, row.digest, string.format('%.0f', row.generation), row.nonce, row.state,
    row.fates, row.due, row.since, row.submitted, row.settled, row.attempts, row.lost, row.resumes, row.reason,
  }, '\t')
end

-- What is kept of an id that is remembered: anything else that begins so is a row whose queue is damaged.
local GONE_HERE, GONE_AWAY = '^\t(%x*)\t(%d+)$', '^\t(%x*)\t(%d+)\tleft$'
local function is_gone(text)
  return string.find(text, GONE_HERE) ~= nil or string.find(text, GONE_AWAY) ~= nil
end

local function queued(row)
  return row.state == 'queued' or row.state == 'claimed'
end

-- In the order of a queue: priority, due, id.
local function place_of(id, row)
  local due = string.sub(row.due, 1, 1) == '-' and '0' or row.due
  return string.format('%03d', 100 - row.priority) .. ':' .. string.rep('0', 18 - #due) .. due .. ':' .. id
end

local function id_of(place)
  return string.sub(place, 24)
end

-- How much is in the queue, for those who set a limit.
local messages, bytes = 0, 0

local function weigh(sign, row)
  messages, bytes = messages + sign, bytes + sign * row.size
end

-- A counter that is no number counts from nothing.
local function counted(text)
  return text and #text <= DIGITS + 1 and string.match(text, '^%-?%d+$') and tonumber(text) or 0
end

local function add(field, number)
  local said = number ~= 0 and redis.pcall('HINCRBY', META, field, string.format('%.0f', number))
  if type(said) == 'table' and said.err then
    redis.pcall('HSET', META, field, string.format('%.0f', math.max(0, number)))
  end
end

local function note_load()
  add('messages', messages)
  add('bytes', bytes)
  messages, bytes = 0, 0
end

local function detach(id, row)
  if queued(row) then
    local lane, place = LANE[row.queue], place_of(id, row)
    write('ZREM', lane.scheduled, id)
    write('ZREM', lane.ready, place)
    write('ZREM', lane.suspects, place)
    weigh(-1, row)
  else
    write('ZREM', DONE[row.state], id)
  end
end

local function attach(id, row)
  if not queued(row) then
    write('ZADD', DONE[row.state], row.settled, id)
    return
  end
  local lane = LANE[row.queue]
  weigh(1, row)
  if tonumber(row.due) > NOW then
    write('ZADD', lane.scheduled, row.due, id)
  elseif row.lost > 0 or row.state == 'claimed' then
    write('ZADD', lane.suspects, '0', place_of(id, row))
  else
    write('ZADD', lane.ready, '0', place_of(id, row))
  end
end

-- Nothing stays of a message that has left the sorted sets, but for its id where that is *buried*: as *left* where it went
-- to another store.
local function discard(id, row, buried, left)
  write('HDEL', ENVELOPE, id)
  write('HDEL', CONTENT, id)
  write('HDEL', PAST, id, id .. '!')
  write('ZREM', IDS, id)
  if buried then
    local settled = row.settled == '' and now or row.settled
    write('HSET', ROW, id, '\t' .. row.digest .. '\t' .. settled .. (left or ''))
    write('ZADD', GONE, settled, id)
  else
    write('HDEL', ROW, id)
  end
end

-- A row that cannot be read, as far as it can: who may have had it, may have it.
local function salvaged(text, queue)
  local fields = {}
  for field in string.gmatch(text .. '\t', '([^\t]*)\t') do fields[#fields + 1] = field end
  local function field(place, pattern, otherwise)
    return string.match(fields[place] or '', pattern) or otherwise
  end
  local name, size, digest = field(1, '^[a-z0-9._-]+$', ''), field(3, '^%d+$', '0'), field(4, '^%x+$', '')
  local state, fates = field(7, '^%l+$', ''), field(8, '^[wdafu]+$', 'u')
  if name == '' or #name > 64 then name = 'unreadable' end
  if not (state == 'queued' or DONE[state]) then fates = string.gsub(fates, 'w', 'd') end
  return {
    queue = queue or name, priority = 0, size = #size > DIGITS and 0 or tonumber(size),
    digest = #digest % 2 == 0 and digest or '', generation = 0, nonce = '', state = 'held', fates = fates, due = now,
    since = now, submitted = now, settled = now, attempts = 0, lost = 0, resumes = '', reason = 'its row cannot be read',
  }
end

-- What a queue gives out that is none of its messages is held, unless its place there is all that is wrong.
local function set_aside(id, text, queue)
  if not text then
    if redis.call('HEXISTS', ENVELOPE, id) == 0 then return end
  else
    local row = parse(text)
    if is_gone(text) or row and not queued(row) then return end
  end
  local row = salvaged(text or '', queue)
  write('HSET', ROW, id, render(row))
  write('ZADD', IDS, '0', id)
  write('ZADD', DONE.held, now, id)
  weigh(-1, row)
end

local function read_of(text, queue)
  local row = text and not is_gone(text) and parse(text) or nil
  return row and queued(row) and row.queue == queue and row or nil
end

local function suspended(queue)
  local said = redis.call('HGET', STOPPED, 'queue:' .. queue)
  if not said then return false end
  local ends = tonumber(string.match(said, '^(-?%d+)\t'))
  return ends == nil or ends > NOW
end

local function served(queues)
  local going_on = {}
  for _, queue in ipairs(queues) do
    if not suspended(queue) then going_on[#going_on + 1] = queue end
  end
  return going_on
end

-- Something may have become claimable; who waits reads this, and of it the last. To remove each as the next comes takes
-- longer than to remove many together. It is a hint: what was written stays written where it cannot be told.
local function tell()
  local told = redis.pcall('XADD', NEWS, 'MAXLEN', '~', '100', '*', 'n', '1')
  return type(told) == 'string' and told or ''
end

local function latest()
  local found = redis.pcall('XREVRANGE', NEWS, '+', '-', 'COUNT', '1')
  if found.err then return '' end
  return found[1] and found[1][1] or '0-1'
end

local format = redis.call('HGET', META, 'format')
if format and format ~= '1' then
  return redis.error_reply('OUTBOXFORMAT ' .. format)
end

-- Its lease, from now on: every claim is made here.
local function lease(id, row, till, nonce)
  if row.state == 'claimed' then
    row.fates = string.gsub(row.fates, 'w', 'd')
    row.lost = row.lost + 1
  end
  row.state, row.due, row.nonce = 'claimed', till, nonce
  row.generation, row.attempts = row.generation + 1, row.attempts + 1
  local text = render(row)
  write('HSET', ROW, id, text)
  write('ZADD', LANE[row.queue].scheduled, till, id)
  return text
end
