"""Names that columns and events often have."""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SESSIONS = _words(
    "session sessionid usersession visit visitid sid sessid sessionkey gasessionid browsersession "
    "sitzung sitzungsid sitzungsnummer"
)
USERS = _words(
    "user userid visitor visitorid fullvisitorid anonymousid customer customerid client clientid "
    "userpseudoid deviceid cookieid uid memberid shopper shopperid buyerid kunde kundennummer "
    "kundeid besucher profileid personid email"
)
ORDERS = _words(
    "order orderid ordernumber orderno transaction transactionid invoice invoiceno invoiceid "
    "basketid cartid carttoken checkoutid checkouttoken bestellung bestellnummer purchaseid"
)
ARTICLES = _words(
    "aid article articleid articlenumber item itemid itemnumber product productid prodid sku "
    "variant variantid lineitemvariant lineitemsku asin gtin ean goodsid offerid listingid "
    "contentid stockcode productcode productsku itemsku artikel artikelid artikelnummer produkt "
    "produktid produktnummer pid"
)
PLAIN_IDS = frozenset({"id"})
"""Names that may be an article's, if no other name is."""
TIMES = _words(
    "ts t time timestamp at date datetime eventtime eventtimestamp eventts eventdate eventdatetime "
    "createdat created occurredat happenedat clienttime clienttimestamp invoicedate orderdate "
    "purchasedate zeit zeitpunkt zeitstempel datum uhrzeit"
)
TYPES = _words(
    "type event eventtype eventname action actiontype eventaction behavior behaviour behaviortype "
    "interaction interactiontype activity verb ereignis aktion"
)
WORDS = {
    "clicks": (
        "click clicks view views viewed pageview viewitem viewproduct productview productviewed "
        "productclicked viewcontent viewdetail detail details productdetail itemview itemviewed "
        "viewedproduct selectitem pv ansicht klick"
    ),
    "carts": (
        "cart carts basket addtocart addtobasket addtobag addcart cartadd addedtocart productadded "
        "addproducttocart atc warenkorb"
    ),
    "orders": (
        "order orders purchase purchased transaction buy bought buyitem sale ordercompleted "
        "orderplaced checkoutcompleted itempurchased productpurchased bestellung kauf"
    ),
}
"""Plain words of events, by the types of the table."""
TYPE_OF = {word: name for name, words in WORDS.items() for word in words.split()}


def plain(name: str) -> str:
    """A name without case, blanks and signs: of `properties.product_id`, productid."""
    return plain_word(name.rsplit(".", 1)[-1])


def plain_word(text: str) -> str:
    """Text without case, blanks and signs: addtocart for "Add to cart"."""
    return re.sub(r"[\W_]", "", text.lower())
